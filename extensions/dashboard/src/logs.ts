import { get } from './api';
import { button, h } from './dom';

/** The ends of the logs of the lab's own processes. */
export class Logs {
  readonly node = h('section', { class: 'logs', 'aria-label': 'Logs' });

  constructor(private fail: (problem: Error) => void) {
    for (const name of ['supervisor', 'keeper', 'local-model']) {
      this.process.append(h('option', { value: name }, name));
    }
    this.process.addEventListener('change', () => void this.refresh());
    this.node.append(
      h('div', { class: 'bar' }, h('label', {}, 'Log of ', this.process), button('log', 'Read again', () => void this.refresh())),
      this.text
    );
  }

  async open(cluster: string): Promise<void> {
    this.cluster = cluster;
    await this.refresh();
  }

  private async refresh(): Promise<void> {
    try {
      const log = await get<{ text: string; truncated: boolean }>(['clusters', this.cluster, 'logs'], { process: this.process.value });
      this.text.textContent = (log.truncated ? '…\n' : '') + (log.text || 'This log is empty.');
      this.text.scrollTop = this.text.scrollHeight;
    } catch (problem) {
      this.fail(problem as Error);
    }
  }

  private cluster = '';
  private process = h('select', {});
  private text = h('pre', { class: 'log', tabindex: 0 });
}
