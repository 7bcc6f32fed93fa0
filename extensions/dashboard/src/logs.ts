import { h } from './dom';

/** Letters of a log that are kept on the page. */
const MOST = 500_000;

/** What the websocket tells of a log. */
export interface LogPiece {
  process: string;
  text: string;
  /** Whether the text takes the place of all before it. */
  begin: boolean;
  /** Whether there are lines before it that were not told. */
  truncated: boolean;
}

/** The ends of the logs of the lab's own processes, as they grow. */
export class Logs {
  readonly node = h('section', { class: 'logs', 'aria-label': 'Logs' });

  /** `follow` has a log told from its end on, and no other; null for none. */
  constructor(private follow: (process: string | null) => void) {
    for (const name of ['supervisor', 'keeper', 'local-model']) {
      this.process.append(h('option', { value: name }, name));
    }
    this.process.addEventListener('change', () => this.open());
    this.node.append(h('div', { class: 'bar' }, h('label', {}, 'Log of ', this.process)), this.text);
  }

  open(): void {
    this.text.replaceChildren();
    this.follow(this.process.value);
  }

  close(): void {
    this.follow(null);
  }

  take(piece: LogPiece): void {
    if (piece.process !== this.process.value) {
      return;
    }
    const text = this.text;
    const end = text.scrollHeight - text.scrollTop - text.clientHeight < 40;
    if (piece.begin) {
      text.replaceChildren((piece.truncated ? '…\n' : '') + (piece.text || 'This log is empty.'));
      this.empty = piece.text === '';
    } else {
      const before = this.empty ? '' : (text.textContent ?? '');
      this.empty = false;
      if (before.length + piece.text.length > MOST) {
        const kept = (before + piece.text).slice(-MOST / 2);
        text.replaceChildren('…\n' + kept.slice(kept.indexOf('\n') + 1));
      } else if (before) {
        text.append(piece.text);
      } else {
        text.replaceChildren(piece.text);
      }
    }
    // Who reads at the end is kept there; who reads further up is left alone.
    if (end || piece.begin) {
      text.scrollTop = text.scrollHeight;
    }
  }

  private empty = false;
  private process = h('select', {});
  private text = h('pre', { class: 'log', tabindex: 0 });
}
