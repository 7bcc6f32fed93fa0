/** Words and numbers for people. */

/** How each state is marked besides its word and its colour. */
export const MARKS: Record<string, string> = {
  starting: '◌',
  idle: '○',
  busy: '●',
  waiting: '◆',
  limited: '◇',
  exited: '□',
  failed: '■',
  unknown: '?'
};

/** A state with its mark. */
export function marked(state: string): string {
  return `${MARKS[state] ?? '?'} ${state}`;
}

/** A time that has passed. */
export function ago(seconds: number | null): string {
  if (seconds === null || !Number.isFinite(seconds)) {
    return '';
  }
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) {
    return `${s} s`;
  }
  if (s < 3600) {
    return `${Math.floor(s / 60)} min`;
  }
  return s < 86400
    ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`
    : `${Math.floor(s / 86400)} d`;
}

/** A number, long ones in thousands or millions. */
export function count(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return 'unknown';
  }
  if (value < 10000) {
    return String(Math.round(value * 10) / 10);
  }
  // What would be rounded to 1000 k is a million.
  return value < 999500 ? `${Math.round(value / 1000)} k` : `${(value / 1e6).toFixed(1)} M`;
}

/** A number with its noun. */
export function many(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

export function bytes(value: number): string {
  return value < 999500 ? `${Math.round(value / 1e3)} kB` : `${Math.round(value / 1e6)} MB`;
}

/** The time of day of an instant, '' of one that is not known. */
export function clock(at: string | null | undefined): string {
  const date = at ? new Date(at) : null;
  return date && !Number.isNaN(date.getTime())
    ? date.toLocaleTimeString([], { hour12: false })
    : '';
}

/** A place in a recording, to a tenth of a second. */
export function offset(seconds: number): string {
  const tenths = Math.round(Math.max(0, seconds) * 10);
  const rest = ((tenths % 600) / 10).toFixed(1).padStart(4, '0');
  const minutes = Math.floor(tenths / 600);
  return minutes < 60
    ? `${minutes}:${rest}`
    : `${Math.floor(minutes / 60)}:${String(minutes % 60).padStart(2, '0')}:${rest}`;
}

/** A text cut to a number of letters, whole ones. */
export function short(text: string, most: number): string {
  const letters = [...text.replace(/\s+/g, ' ').trim()];
  return letters.length <= most ? letters.join('') : letters.slice(0, most - 1).join('') + '…';
}
