import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type IStretch, Playhead, Track } from '../../extensions/shared/src/playing.ts';

/** A recording that says "N " at each second N, told three seconds at a time, with a picture of any instant. */
class Tape {
  asked: string[] = [];
  last = 20;
  /** Questions that wait for an answer, when it is to be slow. */
  held: (() => void)[] | null = null;

  async stretch(after: number, anew: boolean): Promise<IStretch> {
    this.asked.push(`${anew ? 'picture' : 'on'} ${after}`);
    if (this.held) {
      await new Promise<void>(done => this.held?.push(done));
    }
    const from = Math.floor(after) + 1;
    const all = [from, from + 1, from + 2].filter(at => at <= this.last);
    const to = all.at(-1) ?? after;
    const said = Array.from({ length: Math.floor(after) }, (_, number) => `${number + 1} `);
    return {
      picture: anew ? { cols: 80, rows: 24, data: said.join('') } : null,
      events: all.map(at => ({ at, kind: 'output', data: `${at} ` })),
      to: to >= this.last ? Infinity : to,
      next: to >= this.last ? null : to + 1
    };
  }
}

class Surface {
  text = '';
  pictures = 0;
  sizes: [number, number][] = [];
  begin(picture: { data: string | Uint8Array }): void {
    this.text = String(picture.data);
    this.pictures += 1;
  }
  async write(data: string | Uint8Array): Promise<void> {
    await Promise.resolve();
    this.text += typeof data === 'string' ? data : new TextDecoder().decode(data);
  }
  resize(cols: number, rows: number): void {
    this.sizes.push([cols, rows]);
  }
}

const upTo = (last: number): string => Array.from({ length: last }, (_, number) => `${number + 1} `).join('');
const settled = (): Promise<void> => new Promise(done => setImmediate(done));

test('whatever is jumped to, what is shown is what had been written until then', async () => {
  const tape = new Tape();
  const surface = new Surface();
  const track = new Track(tape, surface);
  for (const at of [0, 4, 4.5, 2, 17, 3, 20, 99, 20, 1, 12]) {
    await track.show(at);
    assert.equal(surface.text, upTo(Math.min(20, Math.floor(at))), `at ${at}`);
    await settled();
  }
});

test('playing on asks for what comes next before it is needed, and begins with one picture only', async () => {
  const tape = new Tape();
  const surface = new Surface();
  const track = new Track(tape, surface);
  for (let at = 0; at <= 20; at += 0.25) {
    await track.show(at);
    await settled();
    assert.equal(surface.text, upTo(Math.floor(at)));
  }
  assert.equal(surface.pictures, 1);
  assert.deepEqual(tape.asked, ['picture 0', 'on 3', 'on 6', 'on 9', 'on 12', 'on 15', 'on 18']);
  assert.equal(track.upcoming, Infinity);
});

test('what is too much to be drawn on the way is passed over with a picture', async () => {
  const tape = new Tape();
  tape.last = 60;
  const surface = new Surface();
  const track = new Track(tape, surface);
  await track.show(0);
  await settled();
  tape.asked = [];
  await track.show(16); // four stretches, in ten seconds of what is here
  assert.equal(surface.text, upTo(16));
  assert.deepEqual(tape.asked.slice(0, 4), ['on 6', 'on 9', 'on 12', 'picture 16']);
  await settled();
  tape.asked = [];
  await track.show(50);
  assert.equal(surface.text, upTo(50));
  assert.equal(tape.asked[0], 'picture 50');
});

test('of the instants that are wanted while it draws only the last one is drawn', async () => {
  const tape = new Tape();
  const surface = new Surface();
  const track = new Track(tape, surface);
  tape.held = [];
  const shown = [5, 15, 1, 9].map(at => track.show(at));
  await settled();
  assert.deepEqual(tape.asked, ['picture 5']);
  const held = tape.held;
  tape.held = null;
  held.forEach(done => done());
  await Promise.all(shown);
  assert.equal(surface.text, upTo(9));
  assert.ok(surface.pictures <= 2);
});

test('what was asked for before a jump is not mixed in when it comes late', async () => {
  const tape = new Tape();
  const surface = new Surface();
  const track = new Track(tape, surface);
  await track.show(0);
  await settled(); // what comes next is here
  tape.held = [];
  await track.show(5);
  await settled();
  const late = tape.held;
  assert.equal(late.length, 1);
  tape.held = null;
  await track.show(2);
  await settled();
  late.forEach(done => done());
  await settled();
  for (const at of [7, 9, 12]) {
    await track.show(at);
    assert.equal(surface.text, upTo(at));
  }
  // While it waits nobody knows when something happens next.
  assert.equal(track.upcoming, 13);
  tape.held = [];
  const shown = track.show(1);
  await settled();
  assert.equal(track.upcoming, null);
  tape.held.splice(0).forEach(done => done());
  await shown;
  assert.equal(track.upcoming, 2);
});

test('a change of size comes between what was written before and after it', async () => {
  const seen: string[] = [];
  const events = [
    { at: 1, kind: 'output' as const, data: new TextEncoder().encode('a') },
    { at: 1, kind: 'output' as const, data: new TextEncoder().encode('b') },
    { at: 2, kind: 'resize' as const, size: [90, 30] as [number, number] },
    { at: 2, kind: 'facts' as const, facts: 'busy' },
    { at: 3, kind: 'output' as const, data: new TextEncoder().encode('c') }
  ];
  const picture = { cols: 80, rows: 24, data: '' };
  const track = new Track(
    { stretch: async () => ({ picture, facts: 'idle', events, to: Infinity, next: null }) },
    {
      begin: () => void seen.push('begin'),
      write: data => void seen.push(new TextDecoder().decode(data as Uint8Array)),
      resize: (cols, rows) => void seen.push(`${cols}x${rows}`),
      tell: (facts, at) => void seen.push(`${facts} ${at}`)
    }
  );
  await track.show(9);
  assert.deepEqual(seen, ['begin', 'idle 9', 'ab', '90x30', 'busy 2', 'c']);
});

/** Frames of a page, sixty a second, that are drawn when the test says so. */
class Frames {
  time = 0;
  private calls = new Map<number, (time: number) => void>();
  private number = 0;
  request(call: (time: number) => void): number {
    this.calls.set(++this.number, call);
    return this.number;
  }
  cancel(request: number): void {
    this.calls.delete(request);
  }
  async pass(seconds: number): Promise<void> {
    for (const end = this.time + 1000 * seconds; this.time < end - 1e-6;) {
      this.time += 1000 / 60;
      const calls = [...this.calls.values()];
      this.calls.clear();
      calls.forEach(call => call(this.time));
      await settled();
    }
  }
}

function clock(played: Partial<{ duration: number; upcoming: number | null; show: () => Promise<void> }> = {}) {
  const frames = new Frames();
  const wrong: unknown[] = [];
  const what = { duration: 100, upcoming: null as number | null, show: async () => undefined, ...played };
  const head = new Playhead(
    what,
    0,
    () => undefined,
    error => void wrong.push(error),
    frames
  );
  return { frames, head, what, wrong };
}

test('the clock goes as fast as it should, stops, and begins again at the end', async () => {
  const { frames, head } = clock();
  head.start();
  await settled();
  await frames.pass(2);
  assert.ok(Math.abs(head.now - 2) < 0.05, String(head.now));
  head.speed = 16;
  await frames.pass(1);
  assert.ok(Math.abs(head.now - 18) < 0.5, String(head.now));
  head.pause();
  const { now } = head;
  await frames.pass(1);
  assert.equal(head.now, now);
  await head.seek(99.9);
  head.toggle();
  await settled();
  await frames.pass(0.5);
  assert.deepEqual([head.now, head.playing], [100, false]);
  head.start();
  await settled();
  await frames.pass(0.5);
  assert.ok(head.now > 0 && head.now < 10 && head.playing);
});

test('a jump while it plays plays on from there, once', async () => {
  let shown = 0;
  const { frames, head } = clock({
    show: async () => {
      shown += 1;
    }
  });
  head.start();
  await settled();
  await frames.pass(0.5);
  await Promise.all([head.seek(50), head.seek(20)]);
  shown = 0;
  await frames.pass(1);
  assert.ok(shown <= 61, `${shown} frames in a second`);
  assert.ok(Math.abs(head.now - 21) < 0.05, String(head.now));
});

test('pauses are skipped but for their last second, unless they are wanted', async () => {
  const { frames, head, what } = clock({ upcoming: 60 });
  head.start();
  await settled();
  await frames.pass(0.1);
  assert.ok(head.now > 59 && head.now < 59.3, String(head.now));
  what.upcoming = Infinity;
  await frames.pass(0.1);
  assert.ok(head.now > 99 && head.now < 99.3, String(head.now));
  head.skip = false;
  await head.seek(10);
  await frames.pass(0.1);
  assert.ok(head.now < 10.2);
});

test('a frame that takes long is waited for, and one that fails stops the clock and is told', async () => {
  let open = (): void => undefined;
  const { frames, head, what, wrong } = clock();
  head.start();
  await settled();
  await frames.pass(0.5);
  what.show = () => new Promise(done => (open = () => done()));
  await frames.pass(1);
  const { now } = head;
  await frames.pass(1);
  assert.equal(head.now, now);
  what.show = () => Promise.reject(new Error('no such recording'));
  open();
  await settled();
  await frames.pass(0.1);
  assert.equal(head.playing, false);
  assert.equal((wrong[0] as Error).message, 'no such recording');
});
