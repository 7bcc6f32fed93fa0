import { PAGE } from './api';

export interface Frame {
  event: string;
  cluster: string | null;
  seq: number | null;
  data: any;
}

/** Pause before the socket is opened again, in milliseconds: the first, doubled up to the last. */
const RETRY = [500, 15000];

/** The websocket: opened again when it breaks, with the events that were missed meanwhile. */
export class Link {
  /** Called with each frame. */
  onFrame: (frame: Frame) => void = () => undefined;
  /** Called when the socket opens or breaks. */
  onOpen: (open: boolean) => void = () => undefined;

  constructor() {
    this.connect();
    // A machine that wakes up, or a network that comes back, is not waited for.
    window.addEventListener('online', () => this.connect());
    document.addEventListener('visibilitychange', () => document.visibilityState === 'visible' && this.connect());
  }

  get open(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Follow one cluster from an event on, and no other. */
  follow(cluster: string | null, since: number | null): void {
    if (this.cluster && this.cluster !== cluster) {
      this.say({ op: 'unsubscribe', cluster: this.cluster });
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
      this.say({ op: 'repaint', cluster: this.cluster, agent });
    }
  }

  private subscribe(since: number | null): void {
    if (this.cluster) {
      const events = ['status', 'metrics', 'agent', 'message', 'screen', 'alert'];
      this.say({ op: 'subscribe', cluster: this.cluster, events, panes: this.panes, ...(since === null ? {} : { since }) });
    }
  }

  private say(request: object): void {
    if (this.open) {
      this.socket!.send(JSON.stringify(request));
    }
  }

  private connect(): void {
    if (this.socket && this.socket.readyState <= WebSocket.OPEN) {
      return;
    }
    window.clearTimeout(this.retry);
    const url = new URL('api/ws', PAGE);
    url.protocol = url.protocol.replace('http', 'ws');
    const socket = new WebSocket(url);
    this.socket = socket;
    socket.onopen = () => {
      this.wait = RETRY[0];
      this.onOpen(true);
      this.subscribe(this.seq);
    };
    socket.onmessage = event => {
      const frame = JSON.parse(event.data as string) as Frame;
      if (frame.seq !== null && frame.cluster === this.cluster) {
        this.seq = Math.max(this.seq ?? 0, frame.seq);
      }
      this.onFrame(frame);
    };
    socket.onclose = () => {
      if (this.socket === socket) {
        this.onOpen(false);
        this.retry = window.setTimeout(() => this.connect(), this.wait);
        this.wait = Math.min(this.wait * 2, RETRY[1]);
      }
    };
  }

  private socket: WebSocket | null = null;
  private cluster: string | null = null;
  private seq: number | null = null;
  private panes: string[] = [];
  private retry = 0;
  private wait = RETRY[0];
}
