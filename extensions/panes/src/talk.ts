import { make } from "../../shared/src/dom";

/** The conversation around an instant, as the host tells it. */
export interface Told {
  html: string;
  entries: { anchor: string; at: number }[];
  /** Between which instants it is enough; null at either end of the conversation. */
  from: number | null;
  to: number | null;
  before: number;
  after: number;
}

const TAGS = new Set(["DIV", "SPAN", "B", "I", "BDI", "DETAILS", "SUMMARY", "A"]);
const ATTRIBUTES = new Set(["style", "title", "role", "dir", "href", "aria-hidden", "aria-label"]);

/** The conversation beside the panes: it follows the clock, and whoever clicks into it jumps. */
export class Talk {
  readonly element = make("section", "olab-talk", null, { "aria-label": "Conversation" });
  private readonly list = make("div", "olab-entries", null, { tabindex: "0" });
  private readonly earlier = make("div", "olab-empty");
  private readonly later = make("div", "olab-empty");
  private told: Told | null = null;
  private rows: HTMLElement[] = [];
  private current: HTMLElement | null = null;
  private asking = false;
  private now = 0;

  constructor(
    private readonly ask: (at: number) => Promise<Told>,
    private readonly jump: (at: number) => void,
  ) {
    const head = make("header", "olab-head");
    const buttons = [
      ["‹", "Previous message, turn or question", -1],
      ["›", "Next message, turn or question", 1],
    ] as const;
    head.append(make("strong", "olab-name", "Conversation"));
    const steps = make("span", "olab-steps");
    for (const [sign, title, by] of buttons) {
      const button = make("button", "olab-button", sign, { type: "button", title, "aria-label": title });
      button.addEventListener("click", () => this.step(by));
      steps.append(button);
    }
    head.append(steps);
    this.element.append(head, this.list);
    this.list.addEventListener("click", (event) => this.clicked(event));
  }

  /** Shows where the clock is. */
  show(now: number): void {
    this.now = now;
    const told = this.told;
    if (!told || (told.from !== null && now < told.from) || (told.to !== null && now >= told.to)) void this.fetch();
    this.mark();
  }

  /** When the next entry comes; Infinity when there is none, or it is not known. */
  get upcoming(): number {
    return this.told?.entries.find((entry) => entry.at > this.now)?.at ?? Infinity;
  }

  /** Jumps to the entry before or after the one that is shown. */
  step(by: 1 | -1): void {
    const moments = (this.told?.entries ?? []).map((entry) => entry.at);
    const at = by > 0 ? moments.find((one) => one > this.now) : moments.filter((one) => one < this.now).pop();
    if (at !== undefined) this.jump(at);
  }

  private async fetch(): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    const at = this.now;
    try {
      this.put(await this.ask(at));
    } catch {
      // What failed is told where it failed; the next instant asks again.
    } finally {
      this.asking = false;
    }
    if (at !== this.now) this.show(this.now);
    else this.mark();
  }

  private put(told: Told): void {
    this.told = told;
    this.current = null;
    const parsed = new DOMParser().parseFromString(told.html, "text/html");
    this.rows = [...parsed.body.children].map((child) => adopted(child)).filter((row) => row !== null);
    for (const row of this.rows) row.classList.add("olab-entry");
    this.earlier.textContent = told.before ? `${told.before} before these` : "";
    this.later.textContent = told.after ? `${told.after} after these` : "";
    if (!this.rows.length) this.later.textContent = "Nothing was said.";
    this.earlier.hidden = !this.earlier.textContent;
    this.later.hidden = !this.later.textContent;
    this.list.replaceChildren(this.earlier, ...this.rows, this.later);
  }

  private mark(): void {
    const entries = this.told?.entries ?? [];
    let place = -1;
    while (place + 1 < entries.length && entries[place + 1].at <= this.now) place += 1;
    this.rows.forEach((row, number) => row.classList.toggle("olab-to-come", number > place));
    const row = this.rows[place] ?? null;
    if (row === this.current) return;
    this.current?.removeAttribute("aria-current");
    this.current = row;
    if (!row) {
      this.list.scrollTop = 0;
      return;
    }
    row.setAttribute("aria-current", "true");
    const top = row.offsetTop;
    const { scrollTop, clientHeight } = this.list;
    if (top < scrollTop || top + row.offsetHeight > scrollTop + clientHeight) {
      this.list.scrollTop = top - Math.max(0, (clientHeight - row.offsetHeight) / 2);
    }
  }

  private clicked(event: Event): void {
    const target = event.target as Element;
    const link = target.closest("a");
    if (link) event.preventDefault();
    if (!link && (target.closest("summary") || window.getSelection()?.type === "Range")) return;
    const place = this.rows.findIndex((row) => row.contains(target));
    const entry = this.told?.entries[place];
    if (entry) this.jump(entry.at);
  }
}

/** Takes over what the host has made of agents' texts: nothing in it may do more than be seen, whatever went wrong there. */
function adopted(element: Element): HTMLElement | null {
  if (!TAGS.has(element.tagName)) return null;
  const made = document.createElement(element.tagName);
  for (const { name, value } of element.attributes) {
    if (ATTRIBUTES.has(name) && (name !== "href" || value.startsWith("#"))) made.setAttribute(name, value);
  }
  for (const child of element.childNodes) {
    if (child instanceof Text) made.append(child.data);
    else if (child instanceof Element) {
      const inner = adopted(child);
      if (inner) made.append(inner);
    }
  }
  return made;
}
