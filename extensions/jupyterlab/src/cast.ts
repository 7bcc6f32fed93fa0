import { Decompress } from 'fzstd';
import type { TranslationBundle } from '@jupyterlab/translation';
import type { IHappening } from '../../shared/src/playing';

/** Puts a sentence into the user's language; `%1` is its first argument. */
type Trans = Pick<TranslationBundle, '__'>;

/** A recording in asciicast format, version 2 or 3. */
export interface ICast {
  title: string;
  cols: number;
  rows: number;
  startedAt: Date | null;
  /** In their order, in seconds from the beginning. */
  events: IHappening[];
  duration: number;
  /** What is wrong with the file, when not all of it could be read. */
  problem: string | null;
}

/** Largest terminal that is drawn. */
const MOST = 1000;
/** Largest recording that is unpacked: a few bytes can be packed from any number. */
const MOST_BYTES = 100 * 1024 * 1024;

/**
 * Read a recording.
 *
 * A torn end (a recorder that was killed, or one that still writes) is no error: what came before is shown.
 */
export function parseCast(text: string, trans: Trans): ICast {
  const lines = text.split('\n');
  let header: any;
  try {
    header = JSON.parse(lines[0]);
  } catch {
    header = null;
  }
  if (header === null || typeof header !== 'object' || ![2, 3].includes(header.version)) {
    throw new Error(trans.__('this is no recording in asciicast format, version 2 or 3'));
  }
  const relative = header.version === 3;
  const events: IHappening[] = [];
  let now = 0;
  let problem: string | null = null;
  for (let number = 1; number < lines.length; number++) {
    const line = lines[number];
    if (!line || line.startsWith('#')) {
      continue;
    }
    let event: unknown;
    try {
      event = JSON.parse(line);
    } catch {
      event = null;
    }
    if (!Array.isArray(event) || typeof event[0] !== 'number' || typeof event[2] !== 'string') {
      problem = trans.__('line %1 cannot be read; what came before is shown', number + 1);
      break;
    }
    now = relative ? now + event[0] : Math.max(now, event[0]);
    const data = event[2];
    if (event[1] === 'o') {
      events.push({ at: now, kind: 'output', data });
    } else if (event[1] === 'r') {
      const to = resized(data);
      if (to) {
        events.push({ at: now, kind: 'resize', size: to });
      }
    } else if (event[1] === 'm') {
      events.push({ at: now, kind: 'mark', data });
    }
  }
  return {
    title: typeof header.title === 'string' ? header.title : '',
    cols: size(relative ? header.term?.cols : header.width, 80),
    rows: size(relative ? header.term?.rows : header.height, 24),
    startedAt: typeof header.timestamp === 'number' ? new Date(header.timestamp * 1000) : null,
    events,
    duration: now,
    problem
  };
}

class TooLong extends Error {}

/** Unpack a recording that is packed with Zstandard; its last frame may be torn. */
export function unpackCast(base64: string, trans: Trans, most = MOST_BYTES): string {
  const packed = Uint8Array.from(atob(base64), letter => letter.charCodeAt(0));
  const decoder = new TextDecoder();
  let text = '';
  let size = 0;
  const stream = new Decompress(chunk => {
    size += chunk.length;
    if (size > most) {
      throw new TooLong(
        trans.__(
          'this recording is longer than %1 MB: play it in a terminal, with asciinema',
          Math.floor(most / 1024 / 1024)
        )
      );
    }
    text += decoder.decode(chunk, { stream: true });
  });
  try {
    stream.push(packed, true);
  } catch (error) {
    if (error instanceof TooLong) {
      throw error;
    }
    if (!text) {
      throw new Error(trans.__('this file cannot be unpacked: %1', (error as Error).message));
    }
  }
  return text;
}

/** The size of a terminal that an event of a change says. */
export function resized(data: string): [number, number] | null {
  const match = /^(\d+)x(\d+)$/.exec(data);
  return match ? [size(Number(match[1]), 80), size(Number(match[2]), 24)] : null;
}

function size(value: unknown, otherwise: number): number {
  return typeof value === 'number' && value >= 1 ? Math.min(Math.floor(value), MOST) : otherwise;
}
