import { make, setText } from './dom';
import type { Playhead } from './playing';
import { offset } from './words';

const SPEEDS = [0.25, 0.5, 1, 2, 4, 8, 16, 32];
/** Seconds by which an arrow key goes on or back, and one with Shift. */
const STRIDE = 5;
const LONG_STRIDE = 30;

/** A place beside the scrubber. */
export interface IMark {
  at: number;
  kind: string;
  color: string;
  text: string;
}

/** Puts a sentence into the user's language; `%1` is its first argument. */
type Say = (text: string, ...more: string[]) => string;

export interface IBarOptions {
  /** What the names of the classes begin with. */
  prefix: string;
  /** The class of buttons. */
  button: string;
  duration: number;
  marks?: IMark[];
  say?: Say;
}

/** The controls of a player: play, any instant, marks, speed, pauses. */
export class PlayBar {
  readonly element: HTMLElement;
  /** Shows and sets the instant. */
  readonly slider: HTMLInputElement;
  readonly play: HTMLButtonElement;
  private readonly say: Say;
  private readonly time: HTMLElement;
  private readonly speed: HTMLSelectElement;
  private readonly skip: HTMLInputElement;
  private readonly marks: HTMLElement;
  private readonly prefix: string;
  private duration: number;

  constructor(
    private readonly head: () => Playhead | null,
    options: IBarOptions
  ) {
    const say = (this.say = options.say ?? (text => text));
    const prefix = (this.prefix = options.prefix);
    this.duration = options.duration;
    this.play = make('button', options.button, say('Play'), { type: 'button' });
    this.slider = make('input', `${prefix}-slider`, null, {
      type: 'range',
      min: '0',
      step: 'any',
      max: String(options.duration),
      'aria-label': say('Instant')
    });
    this.marks = make('div', `${prefix}-marks`);
    const scrubber = make('div', `${prefix}-scrubber`);
    scrubber.append(this.marks, this.slider);
    this.time = make('span', `${prefix}-time`);
    this.speed = make('select', `${prefix}-speed`, null, { 'aria-label': say('Speed') });
    for (const speed of SPEEDS) {
      this.speed.append(new Option(`${speed} ×`, String(speed), speed === 1, speed === 1));
    }
    const pauses = make('label', `${prefix}-pauses`, say('skip pauses'));
    this.skip = make('input', '', null, { type: 'checkbox' });
    this.skip.checked = true;
    pauses.prepend(this.skip);
    this.element = make('div', `${prefix}-bar`);
    this.element.append(this.play, scrubber, this.time, this.speed, pauses);
    this.setMarks(options.marks ?? []);

    this.play.addEventListener('click', () => this.head()?.toggle());
    this.slider.addEventListener('input', () => void this.head()?.seek(Number(this.slider.value)));
    this.speed.addEventListener('change', () => this.set());
    this.skip.addEventListener('change', () => this.set());
    this.marks.addEventListener('click', event => {
      const at = (event.target as HTMLElement).dataset.at;
      if (at !== undefined) {
        void this.head()?.seek(Number(at));
      }
    });
  }

  /** Hand what is chosen to the clock, which is made after the bar. */
  set(): void {
    const head = this.head();
    if (head) {
      head.speed = Number(this.speed.value);
      head.skip = this.skip.checked;
    }
  }

  setDuration(duration: number): void {
    this.duration = duration;
    this.slider.max = String(duration);
  }

  setMarks(marks: IMark[]): void {
    this.marks.replaceChildren(
      ...marks.map(mark => {
        const element = make('span', `${this.prefix}-mark`, null, {
          title: `${offset(mark.at)} ${mark.text}`,
          'data-at': String(mark.at),
          'data-kind': mark.kind
        });
        element.style.left = `${(100 * mark.at) / (this.duration || 1)}%`;
        element.style.background = mark.color;
        return element;
      })
    );
    this.marks.hidden = marks.length === 0;
  }

  /** Show where the clock is. */
  show(): void {
    const head = this.head();
    const now = Math.min(head?.now ?? 0, this.duration);
    const said = `${offset(now)} / ${offset(this.duration)}`;
    setText(this.time, said);
    this.slider.value = String(now);
    this.slider.setAttribute('aria-valuetext', said);
    setText(this.play, this.say(head?.playing ? 'Pause' : 'Play'));
  }

  /** Do what a key says: Space plays and pauses, arrows go on and back. Returns whether it meant the player. */
  key(event: KeyboardEvent): boolean {
    const head = this.head();
    const target = event.target as Element;
    if (
      !head ||
      event.ctrlKey ||
      event.metaKey ||
      event.altKey ||
      target.matches('select, summary, a')
    ) {
      return false;
    }
    if (event.key === ' ' && !target.matches('button, input[type=checkbox]')) {
      head.toggle();
    } else if (event.key === 'ArrowLeft' || event.key === 'ArrowRight') {
      const stride = event.shiftKey ? LONG_STRIDE : STRIDE;
      void head.seek(head.now + (event.key === 'ArrowRight' ? stride : -stride));
    } else if (event.key === 'Home' || event.key === 'End') {
      void head.seek(event.key === 'Home' ? 0 : this.duration);
    } else {
      return false;
    }
    return true;
  }
}
