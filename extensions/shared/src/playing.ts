/** Playing what was recorded: a clock, and tracks that show what happened until its instant. Without a page of its own. */

/** Longest pause that is shown when pauses are skipped, in seconds. */
const PAUSE = 1;
/** A jump begins with a picture, if what lies between is not here: of more than so many seconds, or stretches. */
const LEAP = 10;
const STRETCHES = 3;
/** Seconds that are fetched before they are needed. */
const AHEAD = 5;
/** Letters or bytes that are written at once. */
const PIECE = 100_000;

/** Something that happened in a pane, at its instant in seconds. */
export interface IHappening<Facts = unknown> {
  at: number;
  kind: 'output' | 'resize' | 'facts' | 'mark';
  /** Of an output. */
  data?: string | Uint8Array;
  /** Of a resize: columns and rows. */
  size?: [number, number];
  facts?: Facts;
}

/** What a screen begins with. */
export interface IPicture {
  cols: number;
  rows: number;
  data: string | Uint8Array;
}

/** What happened after an instant, all of it to another one. */
export interface IStretch<Facts = unknown> {
  /** The screen before the first event; null when it goes on from what was shown. */
  picture: IPicture | null;
  facts?: Facts | null;
  events: IHappening<Facts>[];
  /** Infinity when nothing is left out. */
  to: number;
  /** When something happens after that; null when nothing does. */
  next: number | null;
}

/** A recording that is read bit by bit. */
export interface ITape<Facts = unknown> {
  /** What happened after an instant; with `anew` it begins with a picture, of this instant or one before it. */
  stretch(after: number, anew: boolean): Promise<IStretch<Facts>>;
}

/** Where a track is shown. */
export interface ISurface<Facts = unknown> {
  begin(picture: IPicture): void | Promise<void>;
  write(data: string | Uint8Array): void | Promise<void>;
  resize(cols: number, rows: number): void | Promise<void>;
  /** Takes what was known at an instant, or what has changed then. */
  tell?(facts: Facts, at: number): void;
}

/** One recording, shown on one surface. */
export class Track<Facts = unknown> {
  private readonly tape: ITape<Facts>;
  private readonly surface: ISurface<Facts>;
  private events: IHappening<Facts>[] = [];
  private place = 0;
  /** All that happened until then is here. */
  private to = -Infinity;
  private next: number | null = null;
  private shown = -Infinity;
  private begun = false;
  private wanted = 0;
  private running: Promise<void> | null = null;
  private coming: Promise<void> | null = null;
  /** Grows with each new beginning: what was asked for before it is not wanted any more. */
  private take = 0;
  private ended = false;

  constructor(tape: ITape<Facts>, surface: ISurface<Facts>) {
    this.tape = tape;
    this.surface = surface;
  }

  /** Show an instant; of several that are wanted meanwhile only the last one is. */
  show(at: number): Promise<void> {
    this.wanted = at;
    this.running ??= this.run().finally(() => {
      this.running = null;
    });
    return this.running;
  }

  /** The surface lost what it showed, or the recording has changed: begin with a picture. */
  anew(): void {
    this.begun = false;
  }

  end(): void {
    this.ended = true;
  }

  /** When something happens next; null while that is not known, Infinity when nothing does. */
  get upcoming(): number | null {
    if (!this.begun || this.running) {
      return null;
    }
    return this.events[this.place]?.at ?? this.next ?? Infinity;
  }

  private async run(): Promise<void> {
    let at: number;
    do {
      at = this.wanted;
      await this.reach(at);
      await this.draw(at);
      this.shown = at;
    } while (this.wanted !== at && !this.ended);
    this.fetchAhead();
  }

  /** Have here what happened until an instant. */
  private async reach(at: number): Promise<void> {
    const missing = (): boolean => at > this.to && this.next !== null && this.next <= at;
    if (!this.begun || at < this.shown || (missing() && at > this.to + LEAP)) {
      await this.begin(at);
    }
    for (let fetched = 0; missing() && !this.ended; fetched++) {
      await (fetched < STRETCHES ? this.fetch() : this.begin(at));
    }
  }

  private async begin(at: number): Promise<void> {
    this.take += 1;
    this.coming = null;
    const stretch = await this.tape.stretch(at, true);
    if (this.ended) {
      return;
    }
    this.begun = true;
    this.events = [];
    this.add(stretch);
    if (stretch.picture) {
      await this.surface.begin(stretch.picture);
    }
    if (stretch.facts != null) {
      this.surface.tell?.(stretch.facts, at);
    }
  }

  private add(stretch: IStretch<Facts>): void {
    this.events = [...this.events.slice(this.place), ...stretch.events];
    this.place = 0;
    this.to = stretch.to;
    this.next = stretch.next;
  }

  private fetch(): Promise<void> {
    if (!this.coming) {
      const { take } = this;
      this.coming = this.tape.stretch(this.to, false).then(
        stretch => {
          if (take === this.take) {
            this.coming = null;
            this.add(stretch);
          }
        },
        error => {
          if (take === this.take) {
            this.coming = null;
          }
          throw error;
        }
      );
    }
    return this.coming;
  }

  private fetchAhead(): void {
    const few = this.place >= this.events.length / 2 || this.to - this.shown < AHEAD;
    if (
      this.begun &&
      !this.ended &&
      this.next !== null &&
      few &&
      this.next - this.shown < 10 * AHEAD
    ) {
      // What fails is asked for again when it is needed, and told then.
      this.fetch().catch(() => undefined);
    }
  }

  /** Write what belongs before an instant. */
  private async draw(at: number): Promise<void> {
    let pieces: (string | Uint8Array)[] = [];
    let size = 0;
    const flush = async (): Promise<void> => {
      if (pieces.length) {
        const data = joined(pieces);
        pieces = [];
        size = 0;
        await this.surface.write(data);
      }
    };
    while (!this.ended) {
      const event = this.events[this.place];
      if (!event || event.at > at) {
        break;
      }
      this.place += 1;
      if (event.kind === 'output' && event.data !== undefined) {
        pieces.push(event.data);
        size += event.data.length;
      } else if (event.kind === 'resize' && event.size) {
        await flush();
        await this.surface.resize(...event.size);
      } else if (event.kind === 'facts' && event.facts !== undefined) {
        this.surface.tell?.(event.facts, event.at);
      }
      if (size > PIECE) {
        await flush();
      }
    }
    await flush();
  }
}

function joined(pieces: (string | Uint8Array)[]): string | Uint8Array {
  if (pieces.length === 1 || typeof pieces[0] === 'string') {
    return pieces.length === 1 ? pieces[0] : pieces.join('');
  }
  const parts = pieces as Uint8Array[];
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}

/** What a clock drives: all of it shows the same instant. */
export interface IPlayed {
  readonly duration: number;
  /** Done when it is drawn: a heavy recording plays slower instead of piling up. */
  show(at: number): Promise<void>;
  /** When something happens next; null while that is not known, Infinity when nothing does. */
  readonly upcoming: number | null;
}

/** When the next frame of a page is drawn, as `requestAnimationFrame` tells it. */
export interface IFrames {
  request(call: (time: number) => void): number;
  cancel(request: number): void;
}

const PAGE: IFrames = {
  request: call => requestAnimationFrame(call),
  cancel: request => cancelAnimationFrame(request)
};

/** The clock: the instant that is shown, and how it goes on. */
export class Playhead {
  speed = 1;
  /** Whether pauses in which nothing happens are cut short. */
  skip = true;
  private readonly played: IPlayed;
  private readonly changed: () => void;
  private readonly failed: (error: unknown) => void;
  private readonly frames: IFrames;
  private at: number;
  private last: number | null = null;
  private request = 0;
  private goes = false;
  /** Grows with each jump: a frame that was begun before it does not go on. */
  private turn = 0;

  constructor(
    played: IPlayed,
    at: number,
    changed: () => void,
    failed: (error: unknown) => void,
    frames: IFrames = PAGE
  ) {
    this.played = played;
    this.at = at;
    this.changed = changed;
    this.failed = failed;
    this.frames = frames;
  }

  /** Seconds that are shown. */
  get now(): number {
    return this.at;
  }

  get playing(): boolean {
    return this.goes;
  }

  /** Show an instant; when it plays, it plays on from there. */
  async seek(at: number): Promise<void> {
    this.turn += 1;
    this.at = Math.min(Math.max(0, at), this.played.duration);
    this.last = null;
    this.frames.cancel(this.request);
    this.changed();
    const { turn } = this;
    await this.show();
    if (this.goes && turn === this.turn) {
      this.step();
    }
  }

  toggle(): void {
    if (this.goes) {
      this.pause();
    } else {
      this.start();
    }
  }

  /** Play; from the beginning when it is at its end. */
  start(): void {
    if (this.goes) {
      return;
    }
    this.goes = true;
    void this.seek(this.at >= this.played.duration ? 0 : this.at);
  }

  pause(): void {
    this.goes = false;
    this.turn += 1;
    this.last = null;
    this.frames.cancel(this.request);
    this.changed();
  }

  private async show(): Promise<void> {
    try {
      await this.played.show(this.at);
    } catch (error) {
      this.pause();
      this.failed(error);
    }
  }

  /** Go on by what has passed since the last frame. */
  private step(): void {
    const { turn } = this;
    this.request = this.frames.request(time => {
      if (!this.goes || turn !== this.turn) {
        return;
      }
      this.at += (Math.max(0, time - (this.last ?? time)) / 1000) * this.speed;
      this.last = time;
      const { upcoming, duration } = this.played;
      if (this.skip && upcoming !== null && Math.min(upcoming, duration) - this.at > PAUSE) {
        this.at = Math.min(upcoming, duration) - PAUSE;
      }
      if (this.at >= duration) {
        this.at = duration;
        this.goes = false;
      }
      this.changed();
      void this.show().then(() => {
        if (this.goes && turn === this.turn) {
          this.step();
        }
      });
    });
  }
}
