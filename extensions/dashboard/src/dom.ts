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
  made.append(
    ...children.filter((child): child is Node | string => child !== null && child !== undefined && child !== false)
  );
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
