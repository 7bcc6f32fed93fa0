import type { Transport } from '../../panes/src/protocol';
import { Link } from './link';

/** The view's messages over the dashboard's socket. Frames that come in one turn of the page's loop become one tick. */
export class LinkTransport implements Transport {
  constructor(
    private link: Link,
    private keys: (agent: string, data: string) => void,
    private act: (message: any) => void
  ) {}

  send(message: any): void {
    switch (message.type) {
      case 'watch':
        this.link.watch(message.agents);
        break;
      case 'repaint':
        this.link.repaint(message.agent);
        break;
      case 'keys':
        this.keys(message.agent, message.data);
        break;
      case 'act':
        this.act(message);
    }
  }

  onMessage(handler: (message: any, buffers: DataView[]) => void): () => void {
    this.handlers.add(handler);
    return () => this.handlers.delete(handler);
  }

  /** Take in a screen frame. */
  screen(data: { agent: string; repaint: boolean; cols: number; rows: number; data: string }): void {
    const raw = Uint8Array.from(atob(data.data), letter => letter.charCodeAt(0));
    this.panes.push({ agent: data.agent, repaint: data.repaint, cols: data.cols, rows: data.rows });
    this.buffers.push(new DataView(raw.buffer));
    this.soon();
  }

  /** Take in facts of the agents, or a sentence about a gap. */
  facts(facts: object): void {
    this.more = { ...this.more, ...facts };
    this.soon();
  }

  /** Say that what was typed could not be typed: the view lets the pane go. */
  refuse(agent: string, message: string): void {
    for (const handler of this.handlers) {
      handler({ type: 'error', agent, message }, []);
    }
  }

  private soon(): void {
    if (!this.scheduled) {
      this.scheduled = true;
      queueMicrotask(() => {
        this.scheduled = false;
        const message = { type: 'tick', panes: this.panes, ...this.more };
        const buffers = this.buffers;
        [this.panes, this.buffers, this.more] = [[], [], {}];
        for (const handler of this.handlers) {
          handler(message, buffers);
        }
      });
    }
  }

  private handlers = new Set<(message: any, buffers: DataView[]) => void>();
  private panes: object[] = [];
  private buffers: DataView[] = [];
  private more: object = {};
  private scheduled = false;
}
