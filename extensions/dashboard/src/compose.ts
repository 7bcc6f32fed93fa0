import { post } from './api';
import { button, h } from './dom';

/** What the form needs of the page. */
export interface ComposeHost {
  cluster(): string | null;
  /** Do something to the cluster that is shown; false when it was refused. */
  act(path: string[], body: object): Promise<boolean>;
  say(text: string, problem: boolean): void;
}

/** The form that writes to agents, or asks one and shows its answer. */
export class Compose {
  readonly node: HTMLElement;

  constructor(private host: ComposeHost) {
    this.node = h(
      'form',
      {
        class: 'compose',
        'aria-label': 'Write to agents',
        submit: (event: Event) => {
          event.preventDefault();
          void this.send();
        }
      },
      h('span', { 'aria-hidden': 'true' }, 'To'),
      this.to,
      this.text,
      h(
        'div',
        { class: 'bar' },
        h('button', { type: 'submit', class: 'primary' }, 'Send'),
        button('ask', 'Ask', () => void this.ask())
      ),
      this.answer
    );
    this.text.addEventListener('keydown', event => {
      if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
        event.preventDefault();
        void this.send();
      }
    });
  }

  /** Forget the answer of another cluster's agent. */
  clear(): void {
    this.answer.replaceChildren();
  }

  setAgents(names: string[]): void {
    const known = [...this.to.options].slice(1).map(one => one.value);
    if (known.join() !== names.join()) {
      const chosen = this.to.value;
      this.to.replaceChildren(
        h('option', { value: 'all' }, 'all agents'),
        ...names.map(name => h('option', { value: name }, name))
      );
      this.to.value = [...names, 'all'].includes(chosen) ? chosen : (names[0] ?? 'all');
    }
  }

  private async send(): Promise<void> {
    const text = this.text.value;
    if (text.trim() && (await this.host.act(['messages'], { to: this.to.value, text }))) {
      this.text.value = '';
    }
  }

  private async ask(): Promise<void> {
    const [to, text, cluster] = [this.to.value, this.text.value, this.host.cluster()];
    if (!text.trim() || !cluster) {
      return;
    }
    if (to === 'all') {
      this.host.say('a question goes to one agent: choose one, or send it to all', true);
      return;
    }
    this.text.value = '';
    this.answer.replaceChildren(h('p', { class: 'faint' }, `${to} was asked…`));
    try {
      const told = await post<{ reply: string | null; timed_out: boolean }>(['clusters', cluster, 'ask'], {
        to,
        text,
        timeout_s: 600
      });
      const reply =
        told.reply ?? (told.timed_out ? 'no answer yet; it will stand among the messages' : 'it gave no answer');
      this.answer.replaceChildren(h('p', { class: 'text' }, h('strong', {}, `${to}: `), reply));
    } catch (problem) {
      this.answer.replaceChildren();
      this.text.value ||= text;
      this.host.say((problem as Error).message, true);
    }
  }

  private to = h('select', { name: 'to', 'aria-label': 'Recipient' });
  private text = h('textarea', {
    name: 'text',
    rows: 2,
    placeholder: 'Write to agents. Ctrl+Enter sends.',
    'aria-label': 'Message'
  });
  private answer = h('div', { class: 'answer', role: 'status' });
}
