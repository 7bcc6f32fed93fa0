import { IRunningSessions } from '@jupyterlab/running';
import { TranslationBundle } from '@jupyterlab/translation';
import { stopIcon, terminalIcon } from '@jupyterlab/ui-components';
import { ISignal } from '@lumino/signaling';
import type { Agent } from '../../shared/src/api';
import { ago } from '../../shared/src/words';
import { agentsIcon } from './icons';
import { ClustersModel, ICluster } from './model';

/** What the Running panel does with a cluster or an agent. */
export interface IRunningActions {
  openCluster(cluster: string): void;
  openAgent(cluster: string, agent: string): void;
  shutdownCluster(cluster: string): void;
  stopAgent(cluster: string, agent: string): void;
}

/** Clusters and their agents in the Running panel. */
export class RunningClusters implements IRunningSessions.IManager {
  constructor(
    private _model: ClustersModel,
    private _actions: IRunningActions,
    private _trans: TranslationBundle
  ) {
    this.name = this._trans.__('Agent clusters');
    this.shutdownAllLabel = this._trans.__('Shut Down All');
    this.shutdownAllConfirmationText = this._trans.__(
      'Shut down all clusters? Their agents are ended; the recorded runs stay.'
    );
  }

  readonly name: string;
  readonly shutdownItemIcon = stopIcon;
  readonly shutdownAllLabel: string;
  readonly shutdownAllConfirmationText: string;
  readonly supportsMultipleViews = true;

  shutdownLabel = (item: IRunningSessions.IRunningItem): string =>
    item.context === 'agent'
      ? this._trans.__('Stop this agent')
      : this._trans.__('Shut down this cluster');

  get runningChanged(): ISignal<any, any> {
    return this._model.changed;
  }

  running(options: { mode: 'tree' | 'list' }): IRunningSessions.IRunningItem[] {
    return this._model.clusters.flatMap(cluster => {
      const agents = cluster.status?.agents ?? [];
      const items = agents.map(agent => this._agent(cluster, agent, options.mode === 'list'));
      const own = this._cluster(cluster);
      return options.mode === 'tree' ? [{ ...own, children: items }] : [own, ...items];
    });
  }

  refreshRunning(): void {
    void this._model.refresh().catch(() => undefined);
  }

  shutdownAll(): void {
    for (const { facts } of this._model.clusters) {
      this._actions.shutdownCluster(facts.name);
    }
  }

  private _cluster({ facts, status }: ICluster): IRunningSessions.IRunningItem {
    const counts = Object.entries(status?.totals.states ?? {}).map(([state, n]) => `${n} ${state}`);
    return {
      context: 'cluster',
      className: 'ol-running-cluster',
      icon: () => agentsIcon,
      label: () => facts.name,
      labelTitle: () => this._trans.__('Cluster %1, run %2', facts.name, facts.run_id),
      detail: () => counts.join(', '),
      open: () => this._actions.openCluster(facts.name),
      shutdown: () => this._actions.shutdownCluster(facts.name)
    };
  }

  private _agent(
    { facts, at }: ICluster,
    agent: Agent,
    alone: boolean
  ): IRunningSessions.IRunningItem {
    const age = () => (agent.state_s === null ? null : agent.state_s + (Date.now() - at) / 1000);
    return {
      context: 'agent',
      className: 'ol-running-agent',
      icon: () => terminalIcon,
      label: () => (alone ? `${facts.name} / ${agent.name}` : agent.name),
      labelTitle: () =>
        this._trans.__(
          'Agent %1',
          `${agent.name} (${agent.kind})${agent.role ? `: ${agent.role}` : ''}`
        ),
      detail: () => `${agent.state} ${ago(age())}`.trim(),
      open: () => this._actions.openAgent(facts.name, agent.name),
      shutdown: () => this._actions.stopAgent(facts.name, agent.name)
    };
  }
}
