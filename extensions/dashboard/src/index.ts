import './style.css';
import { createView } from '../../panes/src/index';
import type { Agent, ClusterFacts, Frame, Status } from '../../shared/src/api';
import { ago, count, many, marked } from '../../shared/src/words';
import { Alerts } from './alerts';
import { get, post } from './api';
import { confirmed } from './ask';
import { Compose } from './compose';
import { button, h, replace } from './dom';
import { Keys } from './keys';
import { Link } from './link';
import { Logs } from './logs';
import { Messages } from './messages';
import { Metrics } from './metrics';
import { Timeline } from './timeline';
import { LinkTransport } from './transport';

const TABS = ['panes', 'messages', 'timeline', 'metrics', 'alerts', 'logs'] as const;
type Tab = (typeof TABS)[number];

/** The page. */
class Dashboard {
  private link = new Link();
  private messages = new Messages();
  private timeline = new Timeline();
  private metrics = new Metrics();
  private alerts = new Alerts(path => void this.act(['alerts', ...path]));
  private logs = new Logs(process => this.link.log(process));
  private transport = new LinkTransport(
    this.link,
    (agent, data) => this.keys?.type(agent, data),
    message => this.asked(message)
  );
  private compose = new Compose({
    cluster: () => this.cluster,
    act: (path, body) => this.act(path, body),
    say: (text, problem) => this.say(text, problem)
  });
  private panes = h('section', { class: 'panes', 'aria-label': 'Panes' });
  private view: { dispose(): void } | null = null;
  private keys: Keys | null = null;

  private clusters: ClusterFacts[] = [];
  private cluster: string | null = null;
  private at = 0;
  private tab: Tab = 'panes';

  private list = h('ul', { class: 'clusters' });
  private linked = h('span', { class: 'linked', role: 'status' });
  private said = h('div', { class: 'said', role: 'status', 'aria-live': 'polite' });
  private head = h('div', { class: 'head' });
  private questions = h('div', { class: 'questions', 'aria-live': 'polite' });
  private agents = h('ul', { class: 'agents', 'aria-label': 'Agents' });
  private tabs = h('div', { class: 'tabs', role: 'tablist', 'aria-label': 'What is shown' });
  private body = h('div', { class: 'body', role: 'tabpanel', tabindex: 0 });
  private main = h('main', {});
  private template = h('select', { 'aria-label': 'Template' });

  constructor(place: HTMLElement) {
    const start = button('start', 'Start', () => void this.start());
    for (const tab of TABS) {
      this.tabs.append(
        h(
          'button',
          { type: 'button', role: 'tab', id: `tab-${tab}`, 'aria-controls': 'body', click: () => this.show(tab) },
          tab
        )
      );
    }
    this.tabs.addEventListener('keydown', event => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) {
        const next = TABS[(TABS.indexOf(this.tab) + step + TABS.length) % TABS.length];
        this.show(next);
        document.getElementById(`tab-${next}`)?.focus();
      }
    });
    this.body.id = 'body';
    this.main.append(this.head, this.questions, this.agents, this.tabs, this.body, this.compose.node);
    place.append(
      h('a', { class: 'skip', href: '#body' }, 'Skip to the cluster'),
      h(
        'nav',
        { 'aria-label': 'Clusters' },
        h('h1', {}, 'Orchestrator Lab'),
        this.linked,
        h('h2', {}, 'Clusters'),
        this.list,
        h(
          'details',
          { class: 'starting' },
          h('summary', {}, 'Start a cluster'),
          h('div', { class: 'bar' }, this.template, start)
        )
      ),
      this.main,
      this.said
    );
    this.link.onFrame = frame => this.take(frame);
    this.link.onOpen = (open, was) => {
      this.linked.textContent = open ? 'live' : 'not connected';
      this.linked.classList.toggle('lost', !open);
      // A browser is not told why a socket cannot be opened: a request says.
      if (!open && !was) {
        void this.look();
      }
    };
    // The view of panes looks whether the page is dark when this class changes.
    const dark = matchMedia('(prefers-color-scheme: dark)');
    const shade = () => document.documentElement.classList.toggle('dark', dark.matches);
    dark.addEventListener('change', shade);
    shade();
    window.addEventListener('hashchange', () => void this.follow());
    window.setInterval(() => this.age(), 1000);
    void this.begin();
  }

  private async begin(): Promise<void> {
    const { templates } = await get<{ templates: string[] }>(['templates']).catch(() => ({ templates: [] }));
    replace(this.template, ...templates.map(name => h('option', { value: name }, name)));
  }

  // which clusters ---------------------------------------------------------------------------------

  /** Ask which clusters run, which is pushed otherwise. */
  private async look(): Promise<void> {
    try {
      await this.takeClusters((await get<{ clusters: ClusterFacts[] }>(['clusters'])).clusters);
    } catch (problem) {
      this.say((problem as Error).message, true);
    }
  }

  /** Take in which clusters run. */
  private async takeClusters(clusters: ClusterFacts[]): Promise<void> {
    this.clusters = clusters;
    this.drawClusters();
    await this.follow();
  }

  private run: string | null = null;

  /** Show the cluster that the address names, or the first one. */
  private async follow(): Promise<void> {
    const name = wanted() ?? this.cluster ?? this.clusters[0]?.name ?? null;
    const facts = this.clusters.find(one => one.name === name);
    if (facts && facts.name === this.cluster && facts.run_id === this.run) {
      return;
    }
    this.view?.dispose();
    this.view = null;
    this.keys = null;
    this.panes.replaceChildren();
    this.compose.clear();
    this.cluster = facts?.name ?? null;
    this.run = facts?.run_id ?? null;
    this.drawClusters();
    this.main.classList.toggle('empty', !facts);
    if (!facts) {
      this.link.follow(null, null);
      replace(
        this.head,
        h(
          'p',
          {},
          name
            ? `No cluster ${name} runs.`
            : 'No cluster runs. Start one here, in a notebook, or with orchestrator-lab start.'
        )
      );
      replace(this.questions);
      return;
    }
    document.title = `${facts.name} · Orchestrator Lab`;
    try {
      const cluster = facts.name;
      const [since, status] = await Promise.all([
        this.messages.open(cluster),
        get<Status>(['clusters', cluster, 'status']),
        this.alerts.open(cluster),
        this.timeline.open(cluster)
      ]);
      if (this.cluster !== cluster || this.run !== facts.run_id) {
        return;
      }
      this.takeStatus(status);
      this.link.follow(cluster, since);
      this.keys = this.keyboard(cluster);
      this.view = createView(this.panes, this.transport, { controls: true, theme: 'auto' });
      this.transport.facts({ agents: status.agents });
      this.show(this.tab);
    } catch (problem) {
      if (this.run === facts.run_id) {
        // Followed once more when a cluster has changed: one that only begins does not answer yet.
        this.run = null;
        this.say((problem as Error).message, true);
      }
    }
  }

  private drawClusters(): void {
    replace(
      this.list,
      ...this.clusters.map(one =>
        h(
          'li',
          {},
          h(
            'a',
            {
              href: `#cluster=${encodeURIComponent(one.name)}`,
              'data-key': `cluster ${one.name}`,
              'aria-current': one.name === this.cluster ? 'page' : null
            },
            one.name
          )
        )
      ),
      this.clusters.length === 0 && h('li', { class: 'faint' }, 'none')
    );
  }

  // what is told -----------------------------------------------------------------------------------

  private take(frame: Frame): void {
    if (frame.event === 'error' && (frame.cluster === null || frame.cluster === this.cluster)) {
      this.say(frame.data.message ?? 'the server refused something', true);
    } else if (frame.event === 'clusters') {
      void this.takeClusters(frame.data as ClusterFacts[]);
    }
    if (frame.cluster !== this.cluster) {
      return;
    }
    switch (frame.event) {
      case 'status':
        this.takeStatus(frame.data);
        break;
      case 'screen':
        this.transport.screen(frame.data);
        break;
      case 'message':
        if (frame.data.message) {
          this.messages.take(frame.data.message);
        }
        break;
      case 'alert':
        if (frame.data.alert) {
          this.alerts.take(frame.data.alert);
        }
        break;
      case 'log':
        this.logs.take(frame.data);
        break;
      case 'agent':
        this.timeline.take(frame.data);
        break;
      case 'metrics':
        if (this.tab === 'metrics') {
          void this.metrics.refresh().catch(() => undefined);
        }
    }
  }

  private takeStatus(status: Status): void {
    this.at = Date.now();
    const names = status.agents.map(one => one.name);
    this.timeline.setStatus(status);
    this.messages.setAgents(names);
    this.compose.setAgents(names);
    this.transport.facts({ agents: status.agents, gap: status.gap ?? null });
    this.drawHead(status);
    this.drawQuestions(status);
    this.drawAgents(status);
    const open = status.alerts.length;
    document.getElementById('tab-alerts')!.textContent = open > 0 ? `alerts (${open})` : 'alerts';
  }

  private drawHead(status: Status): void {
    const { totals } = status;
    const states = Object.entries(totals.states).map(([state, n]) => `${n} ${state}`);
    const cluster = status.name;
    replace(
      this.head,
      h('h2', {}, cluster),
      h(
        'span',
        { class: 'faint' },
        [
          status.status,
          ...states,
          many(totals.turns, 'turn'),
          `${count(totals.input_tokens)} tokens in, ${count(totals.output_tokens)} out`
        ].join(' · ')
      ),
      h(
        'div',
        { class: 'bar' },
        button('start-all', 'Start', () => void this.act(['start'])),
        button(
          'restart-all',
          'Restart',
          () =>
            void this.sure('Restart all agents?', 'Their programs are ended and started again.', 'Restart', ['restart'])
        ),
        button(
          'stop-all',
          'Stop',
          () => void this.sure('Stop all agents?', 'Their programs are ended; the run stays.', 'Stop', ['stop'])
        ),
        status.monitoring === 'paused'
          ? button('monitoring', 'Resume monitoring', () => void this.act(['monitoring', 'start']))
          : status.monitoring === 'on' &&
              button('monitoring', 'Pause monitoring', () => void this.act(['monitoring', 'stop'])),
        button(
          'shutdown',
          'Shut down',
          () =>
            void this.sure(
              `Shut down ${cluster}?`,
              'Agents, session and run are ended. What was recorded stays.',
              'Shut down',
              ['shutdown']
            ),
          { class: 'danger' }
        )
      ),
      (status.gap || status.problem) && h('p', { class: 'problem' }, status.gap || status.problem)
    );
  }

  private drawQuestions(status: Status): void {
    const asking = status.agents.filter(one => one.dialog);
    replace(
      this.questions,
      ...asking.map(one => {
        const dialog = one.dialog!;
        return h(
          'section',
          { class: 'question', 'aria-label': `${one.name} asks` },
          h('p', { class: 'text' }, h('strong', {}, `${one.name} asks (${dialog.kind}): `), dialog.subject),
          h(
            'div',
            { class: 'bar' },
            ...dialog.options.map((option, place) =>
              button(
                `answer ${dialog.dialog_id} ${place}`,
                option,
                () => void this.act(['agents', one.name, 'dialog'], { dialog_id: dialog.dialog_id, option: place + 1 })
              )
            )
          )
        );
      }),
      ...status.guards.map(guard =>
        h(
          'section',
          { class: 'question', 'aria-label': 'A guard holds messages' },
          h('p', { class: 'text' }, guard.message),
          h(
            'div',
            { class: 'bar' },
            button(
              `lift ${guard.guard_id}`,
              'Lift',
              () => void this.act(['guards', 'lift'], { guard_id: guard.guard_id })
            )
          )
        )
      )
    );
  }

  private drawAgents(status: Status): void {
    replace(this.agents, ...status.agents.map(one => this.agent(one)));
    this.age();
  }

  private agent(one: Agent): HTMLElement {
    const does = (what: string) => () => void this.act(['agents', one.name, what]);
    return h(
      'li',
      { class: `agent state-${one.state}` },
      h('strong', { title: [one.kind, one.role, one.model].filter(Boolean).join(', ') }, one.name),
      h('span', { class: 'state' }, marked(one.state)),
      h('span', { class: 'age faint', 'data-since': one.state_s === null ? null : this.at - one.state_s * 1000 }),
      h('span', { class: 'faint' }, many(one.turns, 'turn') + (one.queued ? `, ${one.queued} queued` : '')),
      h(
        'span',
        { class: 'bar' },
        button(`interrupt ${one.name}`, 'Interrupt', does('interrupt'), { 'aria-label': `Interrupt ${one.name}` }),
        button(`restart ${one.name}`, 'Restart', does('restart'), { 'aria-label': `Restart ${one.name}` }),
        button(`stop ${one.name}`, 'Stop', does('stop'), { 'aria-label': `Stop ${one.name}` })
      ),
      one.error && h('p', { class: 'problem' }, one.error)
    );
  }

  private age(): void {
    for (const node of this.agents.querySelectorAll<HTMLElement>('.age[data-since]')) {
      node.textContent = ago((Date.now() - Number(node.dataset.since)) / 1000);
    }
    if (this.tab === 'timeline' && this.cluster) {
      this.timeline.draw();
    }
  }

  // what is shown ----------------------------------------------------------------------------------

  private show(tab: Tab): void {
    if (this.tab === 'logs' && tab !== 'logs') {
      this.logs.close();
    }
    this.tab = tab;
    for (const one of TABS) {
      const made = document.getElementById(`tab-${one}`)!;
      made.setAttribute('aria-selected', String(one === tab));
      made.tabIndex = one === tab ? 0 : -1;
    }
    this.body.setAttribute('aria-labelledby', `tab-${tab}`);
    const parts = {
      panes: this.panes,
      messages: this.messages.node,
      timeline: this.timeline.node,
      metrics: this.metrics.node,
      alerts: this.alerts.node,
      logs: this.logs.node
    };
    this.body.replaceChildren(parts[tab]);
    const fail = (problem: Error) => this.say(problem.message, true);
    if (this.cluster && tab === 'metrics') {
      void this.metrics.open(this.cluster).catch(fail);
    } else if (this.cluster && tab === 'logs') {
      this.logs.open();
    } else if (tab === 'timeline') {
      this.timeline.draw();
    }
  }

  // what is done -----------------------------------------------------------------------------------

  private async act(path: string[], body: object = {}): Promise<boolean> {
    if (!this.cluster) {
      return false;
    }
    try {
      await post(['clusters', this.cluster, ...path], body);
      this.say('');
      return true;
    } catch (problem) {
      this.say((problem as Error).message, true);
      return false;
    }
  }

  /** What types into the panes of a cluster, also when another one is shown before all has been typed. */
  private keyboard(cluster: string): Keys {
    const keys = new Keys(
      (agent, data) => post(['clusters', cluster, 'agents', agent, 'keys'], { data }),
      (agent, problem) => {
        this.say(problem.message, true);
        if (this.keys === keys) {
          this.transport.refuse(agent, problem.message);
        }
      }
    );
    return keys;
  }

  private async sure(title: string, text: string, does: string, path: string[]): Promise<void> {
    if (await confirmed(title, text, does)) {
      await this.act(path);
    }
  }

  /** Do what the view of panes asks for. */
  private asked(message: any): void {
    if (typeof message.agent === 'string' && ['interrupt', 'restart', 'stop'].includes(message.action)) {
      void this.act(['agents', message.agent, message.action]);
    }
  }

  private async start(): Promise<void> {
    const template = this.template.value;
    if (!template) {
      return;
    }
    this.say(`starting ${template}…`);
    try {
      const { name, notes } = await post<{ name: string; notes: string[] }>(['clusters'], { template });
      this.say(notes.join(' '));
      location.hash = `cluster=${encodeURIComponent(name)}`;
    } catch (problem) {
      this.say((problem as Error).message, true);
    }
  }

  private say(text: string, problem = false): void {
    this.said.replaceChildren();
    if (text) {
      this.said.append(
        h('p', { class: problem ? 'problem' : '' }, text),
        button('close', 'Close', () => this.say(''))
      );
    }
  }
}

/** The cluster that the address names. */
function wanted(): string | null {
  return new URLSearchParams(location.hash.slice(1)).get('cluster');
}

new Dashboard(document.getElementById('app')!);
