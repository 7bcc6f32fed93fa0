import { ABCWidgetFactory, DocumentRegistry, DocumentWidget } from '@jupyterlab/docregistry';
import { TranslationBundle } from '@jupyterlab/translation';
import { Message } from '@lumino/messaging';
import { Widget } from '@lumino/widgets';
import type { Terminal } from '@xterm/xterm';
import { make } from '../../shared/src/dom';
import { offset } from '../../shared/src/words';
import { ICast, parseCast, resized, unpackCast } from './cast';

/** Longest pause that is shown when pauses are skipped, in seconds. */
const PAUSE = 1;
const SPEEDS = [0.5, 1, 2, 4, 8, 16];

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
    this._play = make('button', 'ol-button', trans.__('Play'));
    this._play.type = 'button';
    this._slider = make('input', 'ol-cast-slider');
    this._slider.type = 'range';
    this._slider.min = '0';
    this._slider.step = 'any';
    this._slider.setAttribute('aria-label', trans.__('Instant'));
    this._time = make('span', 'ol-cast-time');
    this._speed = make('select');
    this._speed.setAttribute('aria-label', trans.__('Speed'));
    for (const speed of SPEEDS) {
      const option = make('option', '', `${speed} ×`);
      option.value = String(speed);
      option.selected = speed === 1;
      this._speed.append(option);
    }
    const pauses = make('label', '', trans.__('skip pauses'));
    this._skip = make('input');
    this._skip.type = 'checkbox';
    this._skip.checked = true;
    pauses.prepend(this._skip);
    this._said = make('p', 'ol-problem');
    this._said.setAttribute('role', 'status');
    const bar = make('div', 'ol-cast-bar');
    bar.append(this._play, this._slider, this._time, this._speed, pauses);
    this.node.append(this._said, this._screen, bar);

    this._play.addEventListener('click', () => (this._playing ? this._pause() : this._start()));
    this._slider.addEventListener('input', () => void this.seek(Number(this._slider.value)));
    this.node.addEventListener('keydown', event => {
      const typed = event.target as HTMLElement;
      if (
        event.key === ' ' &&
        typed !== this._play &&
        typed.tagName !== 'SELECT' &&
        typed !== this._skip
      ) {
        event.preventDefault();
        this._play.click();
      }
    });
    void this._context.ready.then(() => {
      if (!this.isDisposed) {
        void this._load();
        this._context.model.contentChanged.connect(this._load, this);
      }
    });
  }

  /** Seconds from the beginning that are shown. */
  get now(): number {
    return this._now;
  }

  /** Show the screen as it was at an instant. */
  async seek(at: number): Promise<void> {
    if (!this._cast || !this._terminal) {
      return;
    }
    const wanted = Math.min(Math.max(0, at), this._cast.duration);
    if (wanted < this._now || this._next === 0) {
      this._terminal.reset();
      this._terminal.resize(this._cast.cols, this._cast.rows);
      this._next = 0;
    }
    this._now = wanted;
    this._show();
    await this._draw();
  }

  protected onActivateRequest(message: Message): void {
    super.onActivateRequest(message);
    this._play.focus();
  }

  dispose(): void {
    if (!this.isDisposed) {
      this._pause();
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
    this._cast = cast;
    this._said.textContent = cast.problem ?? '';
    this._screen.setAttribute(
      'aria-label',
      this._trans.__('Recording of %1', cast.title || this._context.path)
    );
    this._slider.max = String(cast.duration);
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
    const at = this._next > 0 ? this._now : cast.duration;
    this._next = 0;
    await this.seek(at);
  }

  private _start(): void {
    if (!this._cast) {
      return;
    }
    if (this._now >= this._cast.duration) {
      this._now = Infinity; // from the beginning
      void this.seek(0);
    }
    this._playing = true;
    this._last = performance.now();
    this._step();
    this._show();
  }

  private _pause(): void {
    this._playing = false;
    cancelAnimationFrame(this._frame);
    this._show();
  }

  /** Go on by what has passed since the last frame. */
  private _step(): void {
    this._frame = requestAnimationFrame(time => {
      const cast = this._cast;
      if (!this._playing || !cast || this.isDisposed) {
        return;
      }
      this._now += (Math.max(0, time - this._last) / 1000) * Number(this._speed.value);
      this._last = time;
      const next = cast.events[this._next];
      if (this._skip.checked && next && next.at - this._now > PAUSE) {
        this._now = next.at - PAUSE / 4;
      }
      if (this._now >= cast.duration) {
        this._now = cast.duration;
        this._playing = false;
      }
      this._show();
      // The next frame waits until this one is drawn: a heavy recording plays slower instead of piling up.
      void this._draw().then(() => this._playing && this._step());
    });
  }

  /** Write what belongs before the current instant; several calls wait for each other. */
  private _draw(): Promise<void> {
    this._drawn = this._drawn.then(async () => {
      const cast = this._cast;
      const terminal = this._terminal;
      let piece = '';
      while (cast && terminal && this._next < cast.events.length) {
        const event = cast.events[this._next];
        if (event.at > this._now) {
          break;
        }
        this._next += 1;
        if (event.kind === 'output') {
          piece += event.data;
        } else if (event.kind === 'resize') {
          const to = resized(event.data);
          if (to) {
            await written(terminal, piece);
            piece = '';
            terminal.resize(...to);
          }
        }
        if (piece.length > 500000) {
          await written(terminal, piece);
          piece = '';
        }
      }
      if (terminal && piece) {
        await written(terminal, piece);
      }
    });
    return this._drawn;
  }

  private _show(): void {
    const duration = this._cast?.duration ?? 0;
    const said = `${offset(Math.min(this._now, duration))} / ${offset(duration)}`;
    this._time.textContent = said;
    this._slider.value = String(this._now);
    this._slider.setAttribute('aria-valuetext', said);
    this._play.textContent = this._playing ? this._trans.__('Pause') : this._trans.__('Play');
  }

  private _screen: HTMLElement;
  private _play: HTMLButtonElement;
  private _slider: HTMLInputElement;
  private _time: HTMLElement;
  private _speed: HTMLSelectElement;
  private _skip: HTMLInputElement;
  private _said: HTMLElement;
  private _terminal: Terminal | null = null;
  private _cast: ICast | null = null;
  private _now = 0;
  /** The event that comes next; 0 before anything was written. */
  private _next = 0;
  private _playing = false;
  private _last = 0;
  private _frame = 0;
  private _drawn: Promise<void> = Promise.resolve();
}

function written(terminal: Terminal, text: string): Promise<void> {
  return new Promise(done => terminal.write(text, done));
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
