/** Elements and words. Whatever agents wrote is only ever set as text. */

type Child = Node | string | null | undefined | false;
type Properties = Record<string, string | number | boolean | null | undefined | ((event: any) => void)>;

const SVG = 'http://www.w3.org/2000/svg';

function fill<T extends Element>(made: T, properties: Properties, children: Child[]): T {
  for (const [name, value] of Object.entries(properties)) {
    if (typeof value === 'function') {
      made.addEventListener(name, value);
    } else if (value === true) {
      made.setAttribute(name, '');
    } else if (value !== null && value !== undefined && value !== false) {
      made.setAttribute(name, String(value));
    }
  }
  made.append(...children.filter((child): child is Node | string => child !== null && child !== undefined && child !== false));
  return made;
}

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  return fill(document.createElement(tag), properties, children);
}

export function svg<K extends keyof SVGElementTagNameMap>(
  tag: K,
  properties: Properties = {},
  ...children: Child[]
): SVGElementTagNameMap[K] {
  return fill(document.createElementNS(SVG, tag), properties, children);
}

/** Put other children in place, without taking the focus or the place of reading away. */
export function replace(parent: HTMLElement, ...children: Child[]): void {
  const active = document.activeElement as HTMLElement | null;
  const key = active && parent.contains(active) ? active.dataset.key : undefined;
  const scroll = parent.scrollTop;
  parent.replaceChildren(...children.filter((child): child is Node | string => Boolean(child)));
  parent.scrollTop = scroll;
  if (key) {
    parent.querySelector<HTMLElement>(`[data-key="${CSS.escape(key)}"]`)?.focus();
  }
}

export function button(key: string, text: string, act: () => void, more: Properties = {}): HTMLButtonElement {
  return h('button', { type: 'button', 'data-key': key, click: act, ...more }, text);
}

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
  return s < 86400 ? `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min` : `${Math.floor(s / 86400)} d`;
}

export function count(value: number | null | undefined): string {
  if (value === null || value === undefined) {
    return 'unknown';
  }
  if (value < 10000) {
    return String(Math.round(value * 10) / 10);
  }
  return value < 1e6 ? `${Math.round(value / 1000)} k` : `${(value / 1e6).toFixed(1)} M`;
}

/** A number with its noun. */
export function many(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? '' : 's'}`;
}

export function bytes(value: number): string {
  return value < 1e6 ? `${Math.round(value / 1e3)} kB` : `${Math.round(value / 1e6)} MB`;
}

export function clock(at: string | null | undefined): string {
  const date = at ? new Date(at) : null;
  return date && !Number.isNaN(date.getTime()) ? date.toLocaleTimeString([], { hour12: false }) : '';
}

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
