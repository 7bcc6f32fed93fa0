import type { Frame } from '../../shared/src/api';
import { Socket } from '../../shared/src/socket';
import { PAGE } from './api';

/** The websocket: which clusters run, and one of them followed, with the events that were missed while it was broken. */
export class Link {
  /** Called with each frame. */
  onFrame: (frame: Frame) => void = () => undefined;
  /** Called when the socket opens, breaks, or cannot be opened; `was` says whether it was open. */
  onOpen: (open: boolean, was: boolean) => void = () => undefined;

  constructor() {
    this.socket.onOpen = () => {
      this.onOpen(true, false);
      this.subscribe(this.seq);
      if (this.process !== null) {
        this.log(this.process);
      }
    };
    this.socket.onBroken = was => this.onOpen(false, was);
    this.socket.onFrame = frame => {
      if (frame.seq !== null && frame.cluster === this.cluster) {
        this.seq = Math.max(this.seq ?? 0, frame.seq);
      }
      this.onFrame(frame);
    };
    this.socket.connect();
    // A machine that wakes up, or a network that comes back, is not waited for.
    window.addEventListener('online', () => this.socket.connect());
    document.addEventListener(
      'visibilitychange',
      () => document.visibilityState === 'visible' && this.socket.connect()
    );
  }

  /** Follow one cluster from an event on, and no other. */
  follow(cluster: string | null, since: number | null): void {
    if (this.cluster && this.cluster !== cluster) {
      this.log(null);
      this.socket.say({ op: 'unsubscribe', cluster: this.cluster });
    }
    this.cluster = cluster;
    this.seq = since;
    this.panes = [];
    this.subscribe(since);
  }

  /** Have the output of these panes told. */
  watch(panes: string[]): void {
    this.panes = panes;
    this.subscribe(null);
  }

  repaint(agent: string): void {
    if (this.cluster) {
      this.socket.say({ op: 'repaint', cluster: this.cluster, agent });
    }
  }

  /** Have a log of the cluster told from its end on, and no other; null for none. */
  log(process: string | null): void {
    if (this.cluster && (process !== null || this.process !== null)) {
      this.socket.say({ op: 'log', cluster: this.cluster, process });
    }
    this.process = process;
  }

  private subscribe(since: number | null): void {
    if (this.cluster) {
      const events = ['status', 'metrics', 'agent', 'message', 'screen', 'alert'];
      this.socket.say({
        op: 'subscribe',
        cluster: this.cluster,
        events,
        panes: this.panes,
        ...(since === null ? {} : { since })
      });
    }
  }

  private socket = new Socket(() => {
    const url = new URL('api/ws', PAGE);
    url.protocol = url.protocol.replace('http', 'ws');
    return new WebSocket(url);
  });
  private cluster: string | null = null;
  private seq: number | null = null;
  private panes: string[] = [];
  private process: string | null = null;
}
