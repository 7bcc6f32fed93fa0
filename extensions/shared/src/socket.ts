import type { Frame } from './api';

/** Pause before the socket is opened again, in milliseconds: the first, doubled up to the last. */
const RETRY = [500, 30000];

/** The websocket of the web API: opened again whenever it breaks, until it is closed. */
export class Socket {
  /** Called with each frame. */
  onFrame: (frame: Frame) => void = () => undefined;
  /** Called when the socket has opened. */
  onOpen: () => void = () => undefined;
  /** Called when it broke, or could not be opened; `was` says which. It is tried again unless this calls `close`. */
  onBroken: (was: boolean) => void = () => undefined;

  private open: () => WebSocket;
  private socket: WebSocket | null = null;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private wait = RETRY[0];

  /** `open` begins to open one. */
  constructor(open: () => WebSocket) {
    this.open = open;
  }

  get isOpen(): boolean {
    return this.socket?.readyState === WebSocket.OPEN;
  }

  /** Open it now, unless it is open or being opened: what has just come back is not waited for. */
  connect(): void {
    clearTimeout(this.retry);
    if (this.socket) {
      return;
    }
    const socket = this.open();
    this.socket = socket;
    let was = false;
    socket.onopen = () => {
      was = true;
      this.wait = RETRY[0];
      this.onOpen();
    };
    socket.onmessage = event => {
      if (this.socket === socket) {
        this.onFrame(JSON.parse(event.data as string) as Frame);
      }
    };
    socket.onclose = () => {
      if (this.socket === socket) {
        this.socket = null;
        this.retry = setTimeout(() => this.connect(), this.wait);
        this.wait = Math.min(this.wait * 2, RETRY[1]);
        this.onBroken(was);
      }
    };
  }

  /** Say something, if anybody hears it. */
  say(request: object): void {
    if (this.isOpen) {
      this.socket!.send(JSON.stringify(request));
    }
  }

  /** Open it no more, until `connect`. */
  close(): void {
    clearTimeout(this.retry);
    const socket = this.socket;
    this.socket = null;
    socket?.close();
  }
}
