import { TranslationBundle } from '@jupyterlab/translation';
import { Widget } from '@lumino/widgets';
import { make } from '../../shared/src/dom';
import { count } from '../../shared/src/words';
import { ClustersModel } from './model';

/** The status-bar item: how many agents work, how many wait for a person, and the tokens used. */
export class StatusItem extends Widget {
  constructor(
    private _model: ClustersModel,
    onClick: () => void,
    private _trans: TranslationBundle
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
    const trans = this._trans;
    const parts = [trans.__('%1 busy', busy), trans.__('%1 waiting', waiting)];
    if (alerts > 0) {
      parts.push(trans._n('%1 alert', '%1 alerts', alerts));
    }
    if (tokens > 0) {
      parts.push(trans.__('%1 tokens', count(tokens)));
    }
    const said = parts.join(' · ');
    if (this.node.textContent !== said) {
      this.node.textContent = said;
    }
    this.node.classList.toggle('ol-mod-waiting', waiting > 0);
    const title = trans._n(
      '%2 agents in %1 cluster: show states and alerts',
      '%2 agents in %1 clusters: show states and alerts',
      clusters,
      agents
    );
    this.node.title = title;
    this.node.setAttribute('aria-label', trans.__('Agents: %1. %2', said, title));
  }
}
