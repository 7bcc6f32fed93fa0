import { TranslationBundle } from '@jupyterlab/translation';
import { CommandRegistry } from '@lumino/commands';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { Agent, Alert } from '../../shared/src/api';
import { make } from '../../shared/src/dom';
import { ago, count, marked, short } from '../../shared/src/words';
import { CommandIDs } from './commands';
import { agentsIcon } from './icons';
import { ClustersModel, ICluster } from './model';

/** The side panel: clusters with their agents' states and open alerts. */
export class StatesPanel extends Widget {
  constructor(
    private _model: ClustersModel,
    private _commands: CommandRegistry,
    private _trans: TranslationBundle
  ) {
    super();
    this.id = 'orchestrator-lab-panel';
    this.title.icon = agentsIcon;
    this.title.caption = this._trans.__('Agent clusters');
    this.addClass('ol-panel');
    this.node.setAttribute('role', 'region');
    this.node.setAttribute('aria-label', this._trans.__('Agent clusters'));
    this._model.changed.connect(() => this.update());
  }

  protected onAfterShow(message: Message): void {
    super.onAfterShow(message);
    // Ages are counted on while somebody looks.
    this._timer = window.setInterval(() => this._count(), 1000);
    this.update();
  }

  protected onBeforeHide(message: Message): void {
    window.clearInterval(this._timer);
    super.onBeforeHide(message);
  }

  dispose(): void {
    window.clearInterval(this._timer);
    super.dispose();
  }

  protected onUpdateRequest(): void {
    if (!this.isVisible) {
      return;
    }
    // What has the focus keeps it, though all is drawn anew.
    const focus = (document.activeElement as HTMLElement | null)?.dataset.olKey;
    const scroll = this.node.scrollTop;
    this.node.replaceChildren(...this._draw());
    this.node.scrollTop = scroll;
    if (focus) {
      this.node.querySelector<HTMLElement>(`[data-ol-key="${CSS.escape(focus)}"]`)?.focus();
    }
  }

  private _draw(): HTMLElement[] {
    const { clusters, problem } = this._model;
    const trans = this._trans;
    const drawn: HTMLElement[] = [];
    const head = make('header', 'ol-panel-head');
    head.append(
      make('h2', '', trans.__('Agent clusters')),
      this._button('dashboard', trans.__('Dashboard'), CommandIDs.dashboard, {})
    );
    drawn.push(head);
    if (problem) {
      const told = make(
        'p',
        'ol-problem',
        trans.__('The server does not tell of clusters: %1', problem)
      );
      told.setAttribute('role', 'status');
      drawn.push(told);
    } else if (clusters.length === 0) {
      drawn.push(
        make(
          'p',
          'ol-empty',
          trans.__('No cluster runs. Start one in a notebook or in the dashboard.')
        )
      );
    }
    for (const cluster of clusters) {
      drawn.push(this._cluster(cluster));
    }
    return drawn;
  }

  private _cluster(cluster: ICluster): HTMLElement {
    const { facts, status } = cluster;
    const trans = this._trans;
    const section = make('section', 'ol-cluster');
    section.setAttribute('aria-label', trans.__('Cluster %1', facts.name));
    const head = make('div', 'ol-cluster-head');
    head.append(
      make('h3', '', facts.name),
      make(
        'span',
        'ol-faint',
        !status ? trans.__('asking') : status.status === 'running' ? '' : status.status
      )
    );
    head.append(
      this._button(`open ${facts.name}`, trans.__('Open'), CommandIDs.openCluster, {
        cluster: facts.name
      }),
      this._button(`end ${facts.name}`, trans.__('Shut down'), CommandIDs.shutdown, {
        cluster: facts.name
      })
    );
    section.append(head);
    if (!status) {
      return section;
    }
    const list = make('ul', 'ol-agents');
    list.append(...status.agents.map(agent => this._agent(cluster, agent)));
    section.append(list);
    const { input_tokens, output_tokens, turns } = status.totals;
    section.append(
      make(
        'p',
        'ol-faint',
        trans._n(
          '%1 turn, %2 tokens in, %3 out',
          '%1 turns, %2 tokens in, %3 out',
          turns,
          count(input_tokens),
          count(output_tokens)
        )
      )
    );
    if (status.alerts.length > 0) {
      const clear = make('div', 'ol-cluster-head');
      clear.append(
        make('h4', '', trans.__('Alerts (%1)', status.alerts.length)),
        this._button(`clear ${facts.name}`, trans.__('Clear all'), CommandIDs.clearAlerts, {
          cluster: facts.name
        })
      );
      const alerts = make('ul', 'ol-alerts');
      alerts.append(...status.alerts.map(alert => this._alert(facts.name, alert)));
      section.append(clear, alerts);
    }
    return section;
  }

  private _agent({ facts, at }: ICluster, agent: Agent): HTMLElement {
    const args = { cluster: facts.name, agent: agent.name };
    const trans = this._trans;
    const item = make('li', `ol-agent ol-state-${agent.state}`);
    const state = make('span', 'ol-state', marked(agent.state));
    const age = make('span', 'ol-faint ol-age');
    if (agent.state_s !== null) {
      age.dataset.since = String(at - agent.state_s * 1000);
    }
    const name = this._button(
      `name ${facts.name} ${agent.name}`,
      agent.name,
      CommandIDs.watch,
      args
    );
    name.classList.add('ol-agent-name');
    name.title = trans.__(
      '%1. Open a terminal that shows it.',
      `${agent.name} (${agent.kind})${agent.role ? `: ${agent.role}` : ''}`
    );
    item.append(name, state, age);
    item.append(
      this._button(
        `take ${facts.name} ${agent.name}`,
        trans.__('Take over'),
        CommandIDs.takeOver,
        args
      )
    );
    if (agent.queued > 0) {
      item.append(make('span', 'ol-faint', trans.__('%1 queued', agent.queued)));
    }
    if (agent.error) {
      item.append(make('p', 'ol-problem', short(agent.error, 300)));
    }
    if (agent.dialog) {
      const dialog = agent.dialog;
      const question = make('div', 'ol-dialog');
      question.setAttribute('role', 'group');
      question.setAttribute('aria-label', trans.__('%1 asks', agent.name));
      question.append(make('p', '', short(`${dialog.kind}: ${dialog.subject}`, 400)));
      dialog.options.forEach((option, place) => {
        const answer = this._button(
          `answer ${dialog.dialog_id} ${place}`,
          short(option, 60),
          CommandIDs.answer,
          { ...args, dialog: dialog.dialog_id, option: place + 1 }
        );
        answer.title = option;
        question.append(answer);
      });
      item.append(question);
    }
    return this._counted(item);
  }

  private _alert(cluster: string, alert: Alert): HTMLElement {
    const item = make('li', `ol-alert ol-level-${alert.level}`);
    const told = alert.acknowledged_by
      ? this._trans.__('%1, acknowledged', alert.level)
      : alert.level;
    item.append(make('strong', '', told), make('p', '', short(alert.message, 400)));
    const args = { cluster, alert: alert.alert_id };
    if (!alert.acknowledged_by) {
      item.append(
        this._button(
          `ack ${alert.alert_id}`,
          this._trans.__('Acknowledge'),
          CommandIDs.acknowledge,
          args
        )
      );
    }
    item.append(
      this._button(`resolve ${alert.alert_id}`, this._trans.__('Resolve'), CommandIDs.resolve, args)
    );
    return item;
  }

  private _button(
    key: string,
    text: string,
    command: string,
    args: Record<string, string | number>
  ): HTMLButtonElement {
    const made = make('button', 'ol-button', text);
    made.type = 'button';
    made.dataset.olKey = key;
    made.addEventListener('click', () => void this._commands.execute(command, args));
    return made;
  }

  private _count(): void {
    this._counted(this.node);
  }

  private _counted<T extends HTMLElement>(node: T): T {
    for (const age of node.querySelectorAll<HTMLElement>('.ol-age[data-since]')) {
      age.textContent = ago((Date.now() - Number(age.dataset.since)) / 1000);
    }
    return node;
  }

  private _timer = 0;
}
