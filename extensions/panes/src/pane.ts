import { Unicode11Addon } from "@xterm/addon-unicode11";
import { Terminal } from "@xterm/xterm";
import { make, setText } from "../../shared/src/dom";
import { ago, count } from "../../shared/src/words";
import type { AgentFacts, PaneFacts } from "./protocol";
import { isAnswer, openLink, silence } from "./quiet";
import { DARK, LIGHT, type Shade } from "./theme";

/** Bytes that may wait for a terminal; a slower browser gets the whole screen instead. */
const BACKLOG = 1 << 18;
const SMALLEST = 9;
const LARGEST = 14;
const FONT = 'ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Noto Sans Mono CJK JP", monospace';

export interface PaneHost {
  repaint(agent: string): void;
  keys(agent: string, data: string): void;
  takeOver(agent: string): void;
  letGo(): void;
  maximise(agent: string): void;
  /** Milliseconds of the clock by which states last. */
  now(): number;
}

/** One agent: its facts, and its terminal once it has been in sight. */
export class Pane {
  readonly element: HTMLElement;
  readonly frame: HTMLElement;
  private readonly state = make("span", "olab-state");
  private readonly role = make("span", "olab-role");
  private readonly figures = make("span", "olab-figures");
  private readonly note = make("div", "olab-note");
  private readonly take: HTMLButtonElement;
  private readonly maximise: HTMLButtonElement;
  private terminal: Terminal | null = null;
  private facts: AgentFacts;
  private since: number;
  private queue: Uint8Array[] = [];
  private waiting = 0;
  private writing = false;
  /** Whether output means nothing until the next repaint, and whether that was asked for. */
  private behind = true;
  private asked = false;
  private seen = false;
  private frameRequest = 0;
  private typed = "";
  private readonly whenDrawn: (() => void)[] = [];
  private columns = 80;
  private lines = 24;
  taken = false;

  constructor(
    facts: AgentFacts,
    private readonly host: PaneHost,
    private shade: Shade,
    controls: boolean,
  ) {
    this.facts = facts;
    this.since = host.now();
    const name = facts.name;
    this.element = make("section", "olab-pane", null, { "data-agent": name, tabindex: "0" });
    const head = make("header", "olab-head");
    this.take = make("button", "olab-button olab-take", "Take over", {
      type: "button",
      title: "Type into this pane yourself. Shift+Escape lets go.",
      "aria-pressed": "false",
    });
    this.take.hidden = !controls;
    this.take.addEventListener("click", () => (this.taken ? host.letGo() : host.takeOver(name)));
    this.maximise = make("button", "olab-button olab-max", "⤢", {
      type: "button",
      title: "Maximise",
      "aria-label": `Maximise ${name}`,
      "aria-pressed": "false",
    });
    this.maximise.addEventListener("click", () => host.maximise(name));
    head.append(make("strong", "olab-name", name), this.role, this.state, this.figures, this.take, this.maximise);
    head.addEventListener("dblclick", (event) => {
      if (!(event.target as Element).closest("button")) host.maximise(name);
    });
    this.frame = make("div", "olab-frame");
    this.note.hidden = true;
    this.element.append(head, this.note, this.frame);
    this.element.addEventListener("keydown", (event) => {
      if (event.target === this.element && event.key === "Enter") host.maximise(name);
    });
    // Who types into a pane that is not taken over must not meet the notebook's one-letter commands instead.
    for (const type of ["mousedown", "click"]) {
      this.frame.addEventListener(type, () => {
        if (!this.taken) this.element.focus({ preventScroll: true });
      });
    }
    this.tell(facts);
  }

  get name(): string {
    return this.facts.name;
  }

  tell(facts: AgentFacts): void {
    const before = this.facts.state;
    this.facts = { ...this.facts, ...facts };
    if (facts.state_s != null) this.since = this.host.now() - 1000 * facts.state_s;
    else if (before !== this.facts.state) this.since = this.host.now();
    const state = this.facts.state ?? "unknown";
    this.element.dataset.state = state;
    setText(this.role, this.facts.role ?? "");
    this.role.title = this.facts.role ?? "";
    const counted: string[] = [];
    if (this.facts.turns != null) counted.push(this.facts.turns === 1 ? "1 turn" : `${this.facts.turns} turns`);
    if (this.facts.input_tokens != null || this.facts.output_tokens != null) {
      counted.push(`${count((this.facts.input_tokens ?? 0) + (this.facts.output_tokens ?? 0))} tokens`);
    }
    if (this.facts.queued) counted.push(`${this.facts.queued} queued`);
    setText(this.figures, counted.join(" · "));
    const note = this.facts.dialog ? `asks: ${this.facts.dialog.subject ?? "a question"}` : (this.facts.error ?? "");
    setText(this.note, note);
    this.note.hidden = !note;
    this.clock();
    this.label();
  }

  /** Shows how long it has been in its state. */
  clock(): void {
    const seconds = Math.max(0, this.host.now() - this.since) / 1000;
    const known = this.facts.state != null;
    setText(this.state, known ? `${this.facts.state} ${ago(seconds)}` : "unknown");
  }

  private label(): void {
    const { name, role, state } = this.facts;
    const taken = this.taken ? ", you are typing into it" : "";
    this.element.setAttribute("aria-label", `Agent ${name}${role ? `, ${role}` : ""}: ${state ?? "unknown"}${taken}`);
  }

  setMaximised(on: boolean): void {
    this.element.classList.toggle("olab-maximised", on);
    this.maximise.setAttribute("aria-pressed", String(on));
    setText(this.maximise, on ? "⤡" : "⤢");
    this.maximise.title = on ? "Back to the grid" : "Maximise";
  }

  setTaken(on: boolean): void {
    this.taken = on;
    this.element.classList.toggle("olab-taken", on);
    this.take.setAttribute("aria-pressed", String(on));
    this.waits(false);
    if (this.terminal) {
      this.terminal.options.disableStdin = !on;
      this.terminal.options.cursorBlink = on;
      if (on) this.terminal.focus();
      else this.terminal.blur();
    }
    this.label();
  }

  /** Shows that taking over was asked for and the host has not answered. */
  waits(on: boolean): void {
    setText(this.take, this.taken ? "Let go" : on ? "Waiting …" : "Take over");
  }

  setShade(shade: Shade): void {
    this.shade = shade;
    if (this.terminal) this.terminal.options.theme = shade === "dark" ? DARK : LIGHT;
  }

  /** Takes in output; it is drawn with the next frame of the page. */
  output(facts: PaneFacts, data: Uint8Array): void {
    if (facts.repaint) {
      this.queue = [];
      this.waiting = 0;
      this.behind = this.asked = false;
      this.columns = facts.cols;
      this.lines = facts.rows;
    } else if (this.behind) {
      this.lacks();
      return;
    }
    this.queue.push(data);
    this.waiting += data.byteLength;
    if (this.waiting > BACKLOG && !facts.repaint) {
      this.miss();
      this.lacks();
      return;
    }
    this.schedule();
  }

  /** Shows a picture of some time ago, to which no output fits. */
  still(facts: PaneFacts, data: Uint8Array): void {
    this.output(facts, data);
    this.behind = true;
  }

  /** Takes note that output was left out: the next repaint shows it. */
  miss(): void {
    this.queue = [];
    this.waiting = 0;
    this.behind = true;
    this.tellDrawn();
  }

  get missing(): boolean {
    return this.behind;
  }

  private lacks(): void {
    if (this.asked || !this.seen) return;
    this.asked = true;
    this.host.repaint(this.name);
  }

  /** Waits until what it was told is drawn; out of sight nothing is, and nobody waits for it. */
  drawn(): Promise<void> {
    if ((!this.writing && this.queue.length === 0) || (!this.seen && !this.terminal)) return Promise.resolve();
    return new Promise((done) => this.whenDrawn.push(done));
  }

  private tellDrawn(): void {
    if (!this.writing && this.queue.length === 0) for (const done of this.whenDrawn.splice(0)) done();
  }

  /** Tells that the pane is in sight, or no longer; before it first is, it has no terminal. */
  setSeen(on: boolean): void {
    this.seen = on;
    this.schedule();
  }

  private schedule(): void {
    if (!this.seen && !this.terminal) return;
    if (this.writing || this.frameRequest || this.queue.length === 0) return;
    this.frameRequest = requestAnimationFrame(() => {
      this.frameRequest = 0;
      this.flush();
    });
  }

  private flush(): void {
    const terminal = this.open();
    if (terminal.cols !== this.columns || terminal.rows !== this.lines) {
      terminal.resize(this.columns, this.lines);
      this.fit();
    }
    const data = new Uint8Array(this.waiting);
    let at = 0;
    for (const piece of this.queue) {
      data.set(piece, at);
      at += piece.byteLength;
    }
    this.queue = [];
    this.waiting = 0;
    this.writing = true;
    terminal.write(data, () => {
      this.writing = false;
      this.follow();
      this.schedule();
      this.tellDrawn();
    });
  }

  private open(): Terminal {
    if (this.terminal) return this.terminal;
    const terminal = new Terminal({
      allowProposedApi: true, // Unicode 11 widths
      cols: this.columns,
      rows: this.lines,
      scrollback: 200,
      disableStdin: !this.taken,
      fontFamily: FONT,
      fontSize: 12,
      lineHeight: 1,
      minimumContrastRatio: this.shade === "light" ? 3 : 1,
      theme: this.shade === "dark" ? DARK : LIGHT,
      linkHandler: { activate: (_event, text) => openLink(text), allowNonHttpProtocols: false },
    });
    terminal.loadAddon(new Unicode11Addon());
    terminal.unicode.activeVersion = "11";
    silence(terminal);
    terminal.onData((data) => this.key(data));
    terminal.attachCustomKeyEventHandler((event) => {
      if (!this.taken) return false;
      if (event.key === "Escape" && event.shiftKey) {
        if (event.type === "keydown") this.host.letGo();
        return false;
      }
      return true;
    });
    terminal.open(this.frame);
    terminal.textarea?.setAttribute("aria-label", `Keyboard of ${this.name}`);
    if (!this.taken && terminal.textarea) terminal.textarea.tabIndex = -1;
    this.terminal = terminal;
    this.fit();
    return terminal;
  }

  private key(data: string): void {
    if (!this.taken || isAnswer(data)) return;
    if (!this.typed) {
      queueMicrotask(() => {
        const typed = this.typed;
        this.typed = "";
        this.host.keys(this.name, typed);
      });
    }
    this.typed += data;
  }

  /** Chooses the size of the letters, so that the width of the pane is used, and they can be read. */
  fit(): void {
    const terminal = this.terminal;
    const width = this.frame.clientWidth;
    if (!terminal || width === 0) return;
    const wanted = width / (terminal.cols * 0.6021);
    const size = Math.max(SMALLEST, Math.min(LARGEST, Math.floor(wanted * 4) / 4));
    if (terminal.options.fontSize !== size) terminal.options.fontSize = size;
    this.follow();
  }

  /** Keeps the cursor's line in sight where the pane is higher than its place. */
  private follow(): void {
    const terminal = this.terminal;
    if (!terminal || this.frame.scrollHeight <= this.frame.clientHeight) return;
    const line = this.frame.scrollHeight / terminal.rows;
    const buffer = terminal.buffer.active;
    // The last line with text counts as well: programs hide the cursor anywhere.
    let last = buffer.cursorY;
    for (let y = terminal.rows - 1; y > last; y--) {
      if (buffer.getLine(buffer.baseY + y)?.translateToString(true)) {
        last = y;
        break;
      }
    }
    const wanted = Math.max(0, Math.ceil((last + 2) * line) - this.frame.clientHeight);
    if (Math.abs(this.frame.scrollTop - wanted) > 1) this.frame.scrollTop = wanted;
  }

  /** What is in the terminal, for tests and for whoever copies it. */
  get screen(): Terminal | null {
    return this.terminal;
  }

  dispose(): void {
    cancelAnimationFrame(this.frameRequest);
    this.miss();
    this.terminal?.dispose();
    this.element.remove();
  }
}
