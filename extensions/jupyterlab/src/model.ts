import { IDisposable } from '@lumino/disposable';
import { TranslationBundle } from '@jupyterlab/translation';
import { ISignal, Signal } from '@lumino/signaling';
import type { Agent, Alert, ClusterFacts, Dialog, Frame, Status } from '../../shared/src/api';
import { Socket } from '../../shared/src/socket';
import { Api, ApiError } from './api';

/** What the model tells: something opened, or is over. */
export type Told =
  | { kind: 'dialog'; cluster: string; agent: string; dialog: Dialog }
  | { kind: 'dialog-over'; cluster: string; agent: string; dialogId: string }
  | { kind: 'alert'; cluster: string; alert: Alert }
  | { kind: 'alert-over'; cluster: string; alertId: string };

/** One cluster, with its status once that is known. */
export interface ICluster {
  facts: ClusterFacts;
  status: Status | null;
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

/**
 * The clusters of this machine, as this browser knows them.
 *
 * Which there are, and what changes in them, is pushed over one websocket.
 */
export class ClustersModel implements IDisposable {
  constructor(
    readonly api: Api,
    private _trans: TranslationBundle
  ) {
    this._socket = new Socket(() => new api.settings.WebSocket(api.socketUrl));
    this._socket.onOpen = () => {
      for (const name of this._clusters.keys()) {
        this._subscribe(name);
      }
    };
    this._socket.onFrame = frame => this._heard(frame);
    this._socket.onBroken = was => {
      // A browser is not told why a socket cannot be opened: a request says.
      if (!was) {
        void this._look().then(
          () =>
            !this._socket.isOpen &&
            this._fail(
              this._trans.__('its websocket cannot be opened (does a proxy hold it back?)')
            ),
          () => undefined
        );
      }
    };
    this._socket.connect();
    // A network that comes back is not waited for.
    window.addEventListener('online', this._connect);
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

  find(cluster: string, agent?: string): { cluster: ICluster; agent: Agent | null } | null {
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

  /** Look again now, and have the socket opened if it is not. */
  async refresh(): Promise<void> {
    await this._look();
    this._connect();
  }

  dispose(): void {
    if (this._isDisposed) {
      return;
    }
    this._isDisposed = true;
    window.removeEventListener('online', this._connect);
    this._socket.close();
    Signal.clearData(this);
  }

  /** Ask which clusters there are, and how they are unless that is pushed. */
  private async _look(): Promise<void> {
    let listed: ClusterFacts[];
    try {
      listed = (await this.api.clusters()).clusters;
    } catch (error) {
      if (error instanceof ApiError && error.status === 404) {
        // A server without this extension's part has no socket either, now and later.
        this._socket.close();
      }
      this._fail(String((error as Error).message));
      throw error;
    }
    if (this._isDisposed) {
      return;
    }
    this._list(listed);
    if (!this._socket.isOpen) {
      await Promise.all(listed.map(one => this._ask(one.name)));
    }
  }

  private async _ask(name: string): Promise<void> {
    try {
      this._take(name, await this.api.status(name));
    } catch {
      // It ended between the two calls, or its supervisor is being restarted: the next push or look says which.
    }
  }

  /** Take in which clusters there are. */
  private _list(listed: ClusterFacts[]): void {
    let changed = this._problem !== null;
    this._problem = null;
    const names = new Set(listed.map(one => one.name));
    for (const [name, known] of this._clusters) {
      if (!names.has(name)) {
        this._forget(name, known.status);
        this._clusters.delete(name);
        this._socket.say({ op: 'unsubscribe', cluster: name });
        changed = true;
      }
    }
    for (const facts of listed) {
      const known = this._clusters.get(facts.name);
      if (known && known.facts.run_id === facts.run_id) {
        known.facts = facts;
        if (!known.status) {
          // One that only began could not be followed yet.
          this._subscribe(facts.name);
        }
        continue;
      }
      if (known) {
        this._forget(facts.name, known.status);
      }
      this._clusters.set(facts.name, { facts, status: null, at: Date.now() });
      this._subscribe(facts.name);
      changed = true;
    }
    if (changed) {
      this._changed.emit();
    }
  }

  /** Take in a status, and tell what has opened or is over since the last one. */
  private _take(name: string, status: Status): void {
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

  private _forget(name: string, status: Status | null): void {
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

  private _heard(frame: Frame): void {
    if (frame.event === 'clusters') {
      this._list(frame.data as ClusterFacts[]);
    } else if (frame.event === 'error' && frame.cluster === null) {
      this._fail(String(frame.data.message));
    } else if (frame.event === 'status' && frame.cluster && frame.data?.agents) {
      this._take(frame.cluster, frame.data as Status);
    }
  }

  private _subscribe(name: string): void {
    this._socket.say({ op: 'subscribe', cluster: name, events: ['status'], panes: [] });
  }

  private _fail(problem: string): void {
    if (this._problem !== problem) {
      this._problem = problem;
      this._changed.emit();
    }
  }

  private _clusters = new Map<string, ICluster>();
  /** Dialogs that were told, with the number of their options. */
  private _dialogs = new Map<string, number>();
  private _socket: Socket;
  private _connect = () => this._socket.connect();
  private _problem: string | null = null;
  private _isDisposed = false;
  private _changed = new Signal<this, void>(this);
  private _told = new Signal<this, Told>(this);
}
