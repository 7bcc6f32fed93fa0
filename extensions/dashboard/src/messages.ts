import type { Message } from '../../shared/src/api';
import { clock } from '../../shared/src/words';
import { get } from './api';
import { button, h } from './dom';

/** Messages that are kept on the page; older ones are asked for. */
const MOST = 2000;
/** Letters of a text that are shown before it is unfolded. */
const FOLDED = 400;

/** The stream of messages, filtered by agent. */
export class Messages {
  readonly node = h('section', { class: 'messages', 'aria-label': 'Messages' });

  constructor() {
    this.agent.addEventListener('change', () => this.draw());
    this.text.addEventListener('input', () => this.draw());
    this.node.append(
      h('div', { class: 'bar' }, h('label', {}, 'Agent ', this.agent), h('label', {}, 'Text ', this.text), this.older),
      this.list
    );
  }

  async open(cluster: string): Promise<number> {
    this.cluster = cluster;
    this.rows.clear();
    this.items.clear();
    this.list.replaceChildren();
    const page = await get<{ messages: Message[]; last_seq: number; more: boolean }>(
      ['clusters', cluster, 'messages'],
      {
        limit: '200'
      }
    );
    if (this.cluster === cluster) {
      page.messages.forEach(row => this.take(row));
      this.older.hidden = !page.more;
    }
    return page.last_seq;
  }

  /** Take in a message as it stands. */
  take(row: Message): void {
    this.rows.set(row.message_id, row);
    if (this.rows.size > MOST) {
      const oldest = this.sorted()[0];
      this.rows.delete(oldest.message_id);
      this.items.get(oldest.message_id)?.remove();
      this.items.delete(oldest.message_id);
      this.older.hidden = false;
    }
    this.place(row);
  }

  setAgents(names: string[]): void {
    const chosen = this.agent.value;
    if (
      [...this.agent.options]
        .slice(1)
        .map(one => one.value)
        .join() !== names.join()
    ) {
      this.agent.replaceChildren(
        h('option', { value: '' }, 'all'),
        ...names.map(name => h('option', { value: name }, name))
      );
      this.agent.value = names.includes(chosen) ? chosen : '';
    }
  }

  private sorted(): Message[] {
    return [...this.rows.values()].sort((a, b) => a.seq - b.seq);
  }

  private fits(row: Message): boolean {
    const agent = this.agent.value;
    const text = this.text.value.toLowerCase();
    return (
      (!agent || row.sender === agent || row.recipient === agent) &&
      (!text || (row.content ?? '').toLowerCase().includes(text))
    );
  }

  private place(row: Message): void {
    const old = this.items.get(row.message_id);
    const item = this.item(row, old?.querySelector('details')?.open ?? false);
    item.hidden = !this.fits(row);
    this.items.set(row.message_id, item);
    if (old) {
      old.replaceWith(item);
      return;
    }
    const end = this.list.scrollHeight - this.list.scrollTop - this.list.clientHeight < 40;
    const next = [...this.list.children].reverse().find(one => Number((one as HTMLElement).dataset.seq) < row.seq);
    if (next) {
      next.after(item);
    } else {
      this.list.prepend(item);
    }
    // Who reads at the end is kept there; who reads further up is left alone.
    if (end) {
      this.list.scrollTop = this.list.scrollHeight;
    }
  }

  private item(row: Message, open: boolean): HTMLElement {
    const text = row.content ?? '';
    const shown = text.length > FOLDED ? text.slice(0, FOLDED) + '…' : text;
    const item = h(
      'li',
      { 'data-seq': row.seq, class: `message rung-${row.status}` },
      h(
        'div',
        { class: 'bar' },
        h('time', {}, clock(row.queued_at)),
        h('strong', {}, `${row.sender} → ${row.recipient}`),
        h('span', { class: 'rung' }, row.status)
      ),
      text.length > FOLDED
        ? h('details', open ? { open: true } : {}, h('summary', {}, shown), h('p', { class: 'text' }, text))
        : h('p', { class: 'text' }, text),
      row.error_message ? h('p', { class: 'problem' }, row.error_message) : null
    );
    return item;
  }

  private draw(): void {
    for (const [id, item] of this.items) {
      item.hidden = !this.fits(this.rows.get(id)!);
    }
    this.list.scrollTop = this.list.scrollHeight;
  }

  private async more(): Promise<void> {
    const first = this.sorted()[0];
    const cluster = this.cluster;
    const page = await get<{ messages: Message[]; more: boolean }>(['clusters', cluster, 'messages'], {
      before: String(first ? first.seq : 1),
      limit: '200'
    });
    if (this.cluster === cluster) {
      const height = this.list.scrollHeight;
      page.messages.reverse().forEach(row => {
        this.rows.set(row.message_id, row);
        this.place(row);
      });
      this.list.scrollTop += this.list.scrollHeight - height;
      this.older.hidden = !page.more;
    }
  }

  private cluster = '';
  private rows = new Map<string, Message>();
  private items = new Map<string, HTMLElement>();
  private agent = h('select', {}, h('option', { value: '' }, 'all'));
  private text = h('input', { type: 'search', placeholder: 'contains' });
  private older = button('older', 'Older messages', () => void this.more().catch(() => undefined), { hidden: true });
  private list = h('ol', { class: 'stream', tabindex: 0, 'aria-label': 'Stream of messages', role: 'log' });
}
