import { ABCWidgetFactory, DocumentRegistry, DocumentWidget } from '@jupyterlab/docregistry';
import { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { Terminal } from '@xterm/xterm';
import { make } from '../../shared/src/dom';
import { PlayBar } from '../../shared/src/playbar';
import { ISurface, Playhead, Track } from '../../shared/src/playing';
import { ICast, parseCast, unpackCast } from './cast';

/** Shows a pane's recording: play, pause, speed, and any instant of it. */
export class CastViewer extends Widget {
  constructor(
    private _context: DocumentRegistry.Context,
    private _packed: boolean,
    private _trans: TranslationBundle
  ) {
    super();
    const trans = this._trans;
    this.addClass('ol-cast');
    this.node.tabIndex = -1;
    this._screen = make('div', 'ol-cast-screen');
    this._screen.setAttribute('role', 'img');
    this._said = make('p', 'ol-problem');
    this._said.setAttribute('role', 'status');
    this._bar = new PlayBar(() => this._head, {
      prefix: 'ol-cast',
      button: 'ol-button',
      duration: 0,
      say: (text, ...more) => trans.__(text, ...more)
    });
    this.node.append(this._said, this._screen, this._bar.element);
    this.node.addEventListener('keydown', event => {
      if (this._bar.key(event)) {
        event.preventDefault();
      }
    });
    void this._context.ready.then(() => {
      if (!this.isDisposed) {
        void this._load();
        this._context.model.contentChanged.connect(this._load, this);
      }
    });
  }

  protected onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this._bar.play.focus();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._head?.pause();
      this._track?.end();
      this._terminal?.dispose();
      super.dispose();
    }
  }

  private async _load(): Promise<void> {
    const text = this._context.model.toString();
    let cast: ICast;
    try {
      cast = parseCast(this._packed ? unpackCast(text, this._trans) : text, this._trans);
    } catch (error) {
      this._said.textContent = `${this._context.path}: ${(error as Error).message}`;
      return;
    }
    const { Terminal } = await import('@xterm/xterm');
    if (this.isDisposed) {
      return;
    }
    this._said.textContent = cast.problem ?? '';
    this._screen.setAttribute(
      'aria-label',
      this._trans.__('Recording of %1', cast.title || this._context.path)
    );
    if (!this._terminal) {
      this._terminal = new Terminal({
        cols: cast.cols,
        rows: cast.rows,
        disableStdin: true,
        fontSize: 12,
        fontFamily: getComputedStyle(document.body).getPropertyValue('--jp-code-font-family'),
        scrollback: 0,
        // What is shown was written by a program: its links go nowhere.
        linkHandler: { activate: () => undefined }
      });
      this._terminal.open(this._screen);
      this._terminal.textarea?.setAttribute('tabindex', '-1');
    }
    // A recording that has grown, or was replaced, is shown where the old one was.
    const at = this._head?.now ?? cast.duration;
    this._head?.pause();
    this._track?.end();
    const track = (this._track = new Track(tapeOf(cast), surfaceOf(this._terminal)));
    const played = {
      duration: cast.duration,
      show: (instant: number) => track.show(instant),
      get upcoming(): number | null {
        return track.upcoming;
      }
    };
    this._bar.setDuration(cast.duration);
    this._bar.setMarks(
      cast.events
        .filter(event => event.kind === 'mark')
        .map(({ at, data }) => ({
          at,
          kind: 'mark',
          color: 'var(--jp-brand-color1)',
          text: String(data)
        }))
    );
    this._head = new Playhead(
      played,
      at,
      () => this._bar.show(),
      error => (this._said.textContent = String(error))
    );
    this._bar.set();
    await this._head.seek(at);
  }

  private _screen: HTMLElement;
  private _said: HTMLElement;
  private _bar: PlayBar;
  private _head: Playhead | null = null;
  private _track: Track | null = null;
  private _terminal: Terminal | null = null;
}

/** A recording all of which is here. */
function tapeOf(cast: ICast) {
  const { cols, rows, events } = cast;
  const picture = { cols, rows, data: '' };
  return { stretch: async () => ({ picture, events, to: Infinity, next: null }) };
}

function surfaceOf(terminal: Terminal): ISurface {
  return {
    begin: ({ cols, rows }) => {
      terminal.reset();
      terminal.resize(cols, rows);
    },
    write: data => new Promise(done => terminal.write(data, done)),
    resize: (cols, rows) => terminal.resize(cols, rows)
  };
}

/** Makes viewers of recordings. */
export class CastFactory extends ABCWidgetFactory<DocumentWidget<CastViewer>> {
  constructor(
    options: DocumentRegistry.IWidgetFactoryOptions<DocumentWidget<CastViewer>>,
    private _packed: boolean,
    private _trans: TranslationBundle
  ) {
    super(options);
  }

  protected createNewWidget(context: DocumentRegistry.Context): DocumentWidget<CastViewer> {
    return new DocumentWidget({
      context,
      content: new CastViewer(context, this._packed, this._trans)
    });
  }
}
