import { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';
import { Poll } from '@lumino/polling';
import { Api, IAlert, IAgent, IClusterFacts, IDialog, IStatus } from './api';

/** What the model tells: something opened, or is over. */
export type Told =
  | { kind: 'dialog'; cluster: string; agent: string; dialog: IDialog }
  | { kind: 'dialog-over'; cluster: string; agent: string; dialogId: string }
  | { kind: 'alert'; cluster: string; alert: IAlert }
  | { kind: 'alert-over'; cluster: string; alertId: string };

/** One cluster, with its status once that is known. */
export interface ICluster {
  facts: IClusterFacts;
  status: IStatus | null;
  /** When the status came, in milliseconds: the age of a state grows from there. */
  at: number;
}

/** Figures over all clusters, for the status bar. */
export interface ITotals {
  clusters: number;
  agents: number;
  busy: number;
  waiting: number;
  alerts: number;
  tokens: number;
}

/** Pause before the server is tried again, in milliseconds: the first one, doubled up to the last. */
const RETRY_MS = [1000, 30000];

/**
 * The clusters of this machine, as this browser knows them.
 *
 * What changes in a cluster is pushed over one websocket. Only which clusters there are is asked for, since nothing
 * tells a server that another program has started one.
 */
export class ClustersModel implements IDisposable {
  constructor(
    readonly api: Api,
    interval: number
  ) {
    this._poll = new Poll({
      name: 'orchestrator-lab:clusters',
      factory: () => this._discover(),
      frequency: { interval, backoff: true, max: 60000 },
      standby: 'when-hidden'
    });
  }

  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get told(): ISignal<this, Told> {
    return this._told;
  }

  get clusters(): ICluster[] {
    return [...this._clusters.values()];
  }

  /** Why nothing is known, or null. */
  get problem(): string | null {
    return this._problem;
  }

  get isDisposed(): boolean {
    return this._isDisposed;
  }

  /** Milliseconds between two looks for new clusters. */
  set interval(interval: number) {
    this._poll.frequency = { ...this._poll.frequency, interval };
  }

  find(cluster: string, agent?: string): { cluster: ICluster; agent: IAgent | null } | null {
    const found = this._clusters.get(cluster);
    if (!found) {
      return null;
    }
    return { cluster: found, agent: found.status?.agents.find(one => one.name === agent) ?? null };
  }

  totals(): ITotals {
    const totals = { clusters: 0, agents: 0, busy: 0, waiting: 0, alerts: 0, tokens: 0 };
    for (const { status } of this._clusters.values()) {
      totals.clusters += 1;
      if (status) {
        totals.agents += status.agents.length;
        totals.busy += status.totals.states.busy ?? 0;
        totals.waiting += status.totals.states.waiting ?? 0;
        totals.alerts += status.alerts.length;
        totals.tokens += status.totals.input_tokens + status.totals.output_tokens;
      }
    }
    return totals;
  }

  /** Look again now. */
  async refresh(): Promise<void> {
    await this._poll.refresh();
    await this._poll.tick;
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    this._poll.dispose();
    window.clearTimeout(this._retry);
    this._socket?.close();
    Signal.clearData(this);
  }

  private async _discover(): Promise<void> {
    let listed: IClusterFacts[];
    try {
      listed = (await this.api.clusters()).clusters;
    } catch (error) {
      this._fail(String((error as Error).message));
      throw error;
    }
    const before = this._problem;
    this._problem = null;
    let changed = before !== null;
    const names = new Set(listed.map(one => one.name));
    for (const [name, known] of this._clusters) {
      if (!names.has(name)) {
        this._forget(name, known.status);
        this._clusters.delete(name);
        this._say({ op: 'unsubscribe', cluster: name });
        changed = true;
      }
    }
    const added: string[] = [];
    for (const facts of listed) {
      const known = this._clusters.get(facts.name);
      if (!known || known.facts.run_id !== facts.run_id) {
        if (known) {
          this._forget(facts.name, known.status);
        }
        this._clusters.set(facts.name, { facts, status: null, at: Date.now() });
        added.push(facts.name);
        changed = true;
      } else {
        known.facts = facts;
      }
    }
    if (this._clusters.size > 0) {
      this._connect();
    }
    for (const name of added) {
      this._subscribe(name);
    }
    await Promise.all(added.map(name => this._ask(name)));
    if (changed) {
      this._changed.emit();
    }
  }

  private async _ask(name: string): Promise<void> {
    try {
      this._take(name, await this.api.status(name));
    } catch {
      // It ended between the two calls, or its supervisor is being restarted: the next push or look says which.
    }
  }

  /** Take in a status, and tell what has opened or is over since the last one. */
  private _take(name: string, status: IStatus): void {
    const known = this._clusters.get(name);
    if (!known) {
      return;
    }
    const before = known.status;
    known.status = status;
    known.at = Date.now();
    const open = new Map(
      before?.agents.filter(one => one.dialog).map(one => [one.dialog!.dialog_id, one.name])
    );
    for (const agent of status.agents) {
      const dialog = agent.dialog;
      // Its options are read off the screen a moment after the question was reported: it is told again with them.
      if (dialog && this._dialogs.get(dialog.dialog_id) !== dialog.options.length) {
        this._dialogs.set(dialog.dialog_id, dialog.options.length);
        this._told.emit({ kind: 'dialog', cluster: name, agent: agent.name, dialog });
      }
      if (dialog) {
        open.delete(dialog.dialog_id);
      }
    }
    for (const [dialogId, agent] of open) {
      this._dialogs.delete(dialogId);
      this._told.emit({ kind: 'dialog-over', cluster: name, agent, dialogId });
    }
    const alerts = new Set(before?.alerts.map(one => one.alert_id));
    for (const alert of status.alerts) {
      if (!alerts.delete(alert.alert_id)) {
        this._told.emit({ kind: 'alert', cluster: name, alert });
      }
    }
    for (const alertId of alerts) {
      this._told.emit({ kind: 'alert-over', cluster: name, alertId });
    }
    this._changed.emit();
  }

  private _forget(name: string, status: IStatus | null): void {
    for (const agent of status?.agents ?? []) {
      if (agent.dialog) {
        this._dialogs.delete(agent.dialog.dialog_id);
        this._told.emit({
          kind: 'dialog-over',
          cluster: name,
          agent: agent.name,
          dialogId: agent.dialog.dialog_id
        });
      }
    }
    for (const alert of status?.alerts ?? []) {
      this._told.emit({ kind: 'alert-over', cluster: name, alertId: alert.alert_id });
    }
  }

  private _connect(): void {
    if (this._socket || this._isDisposed) {
      return;
    }
    window.clearTimeout(this._retry);
    const socket = new this.api.settings.WebSocket(this.api.socketUrl);
    this._socket = socket;
    socket.onopen = () => {
      this._wait = RETRY_MS[0];
      for (const name of this._clusters.keys()) {
        this._subscribe(name);
      }
    };
    socket.onmessage = event => this._heard(event.data as string);
    socket.onclose = () => {
      if (this._socket === socket) {
        this._socket = null;
        if (!this._isDisposed && this._clusters.size > 0) {
          this._retry = window.setTimeout(() => this._connect(), this._wait);
          this._wait = Math.min(this._wait * 2, RETRY_MS[1]);
        }
      }
    };
  }

  private _heard(text: string): void {
    const frame = JSON.parse(text) as { event: string; cluster?: string; data: any };
    if (frame.event === 'status' && frame.cluster && frame.data?.agents) {
      this._take(frame.cluster, frame.data as IStatus);
    } else if (frame.event === 'error') {
      // A cluster that is gone or cannot be heard: which ones there are is asked for again.
      void this._poll.refresh();
    }
  }

  private _subscribe(name: string): void {
    this._say({ op: 'subscribe', cluster: name, events: ['status'], panes: [] });
  }

  private _say(request: object): void {
    if (this._socket?.readyState === WebSocket.OPEN) {
      this._socket.send(JSON.stringify(request));
    }
  }

  private _fail(problem: string): void {
    if (this._problem !== problem) {
      this._problem = problem;
      this._changed.emit();
    }
  }

  private _poll: Poll;
  private _clusters = new Map<string, ICluster>();
  /** Dialogs that were told, with the number of their options. */
  private _dialogs = new Map<string, number>();
  private _socket: WebSocket | null = null;
  private _retry = 0;
  private _wait = RETRY_MS[0];
  private _problem: string | null = null;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
  private _told = new Signal<this, Told>(this);
}
