import { Widget } from '@lumino/widgets';
import { make } from '../../shared/src/dom';
import { count } from '../../shared/src/words';
import { ClustersModel } from './model';

/** The status-bar item: how many agents work, how many wait for a person, and the tokens used. */
export class StatusItem extends Widget {
  constructor(
    private _model: ClustersModel,
    onClick: () => void
  ) {
    super({ node: make('button', 'jp-StatusBar-TextItem ol-status') });
    (this.node as HTMLButtonElement).type = 'button';
    this.node.addEventListener('click', onClick);
    this._model.changed.connect(this._show, this);
    this._show();
  }

  /** Whether there is anything to say. */
  get isActive(): boolean {
    return this._model.clusters.length > 0;
  }

  private _show(): void {
    const { agents, busy, waiting, alerts, tokens, clusters } = this._model.totals();
    const parts = [`${busy} busy`, `${waiting} waiting`];
    if (alerts > 0) {
      parts.push(`${alerts} ${alerts === 1 ? 'alert' : 'alerts'}`);
    }
    if (tokens > 0) {
      parts.push(`${count(tokens)} tokens`);
    }
    const said = parts.join(' · ');
    if (this.node.textContent !== said) {
      this.node.textContent = said;
    }
    this.node.classList.toggle('ol-mod-waiting', waiting > 0);
    const title = `${agents} agents in ${clusters} ${clusters === 1 ? 'cluster' : 'clusters'}: show states and alerts`;
    this.node.title = title;
    this.node.setAttribute('aria-label', `Agents: ${said}. ${title}`);
  }
}
