import type { Terminal } from "@xterm/xterm";
import { make, setText } from "../../shared/src/dom";
import { Messages } from "./messages";
import { Pane, type PaneHost } from "./pane";
import type { AgentFacts, AlertFacts, FromHost, MessageFacts, Options, Tick, Transport } from "./protocol";
import { shadeOf, type Shade } from "./theme";
import { Typing } from "./typing";

/** Milliseconds without an answer after which the host is taken for busy. */
const DEAF_MS = 700;
/** Milliseconds in which panes come into sight and go out again before the host is told. */
const CALM_MS = 120;

export interface View {
  dispose(): void;
  /** The terminal of an agent, once it has been in sight. */
  terminal(agent: string): Terminal | null;
  /** Waits until what a pane was told is drawn. */
  drawn(agent: string): Promise<void>;
  /** Brings up to date how long agents have been in their states. */
  clock(): void;
  /** Says something above the panes; nothing with an empty text. */
  note(text: string): void;
  /** The last picture of all panes as HTML, which a saved page keeps; the host says how to get it. */
  stillHtml: () => string;
}

let count = 0;

export function createView(parent: HTMLElement, transport: Transport, options: Options = {}): View {
  return new ClusterView(parent, transport, options);
}

class ClusterView implements View, PaneHost {
  private readonly id = `v${Date.now().toString(36)}${(count++).toString(36)}`;
  private readonly root = make("div", "olab-view");
  private readonly banner = make("div", "olab-banner", null, { role: "status" });
  private readonly alerts = make("ul", "olab-alerts", null, { "aria-label": "Alerts" });
  private readonly spoken = make("div", "olab-spoken", null, { "aria-live": "polite" });
  private readonly grid = make("div", "olab-grid", null, { role: "group", "aria-label": "Panes" });
  private readonly messages = new Messages();
  private readonly panes = new Map<string, Pane>();
  private readonly seen = new Set<string>();
  private readonly sight: IntersectionObserver;
  private readonly sizes: ResizeObserver;
  private readonly themes: MutationObserver;
  private readonly stop: () => void;
  private readonly ticking: number;
  private readonly onVisible = (): void => this.tellSight();
  private readonly onPoint = (event: Event): void => {
    this.pointed = event.target instanceof Element && this.grid.contains(event.target);
  };
  private readonly onKey = (event: KeyboardEvent): void => this.keepFromNotebook(event);
  /** Whether the last click was into a pane. */
  private pointed = false;
  private shade: Shade;
  private gap: string | null = null;
  private trouble: string | null = null;
  /** The panes in sight as the host knows them; null when it knows nothing. */
  private told: string | null = "";
  private calm = 0;
  private number = 0;
  private unanswered = new Map<number, number>();
  private deaf = false;
  private deafTimer = 0;
  private readonly typing = new Typing((agent, data) => {
    const number = this.send({ type: "keys", agent, data, hold: this.hold });
    return this.options.acks ? number : null;
  });
  /** What a saved notebook is to keep of it; empty while the host has told none. */
  stillHtml: () => string = () => "";
  private untyped = "";
  private asked: { agent: string; number: number } | null = null;
  private taken: string | null = null;
  /** Number of the take-over: after keys that could not be typed, the host drops those that follow under it. */
  private hold = 0;
  private maximised: string | null = null;

  constructor(
    parent: HTMLElement,
    private readonly transport: Transport,
    private readonly options: Options,
  ) {
    if (options.above) this.root.append(options.above);
    this.root.append(this.banner, this.alerts);
    if (options.beside) {
      const stage = make("div", "olab-stage");
      stage.append(this.grid, options.beside);
      this.root.append(stage);
    } else this.root.append(this.grid, this.messages.element);
    this.root.append(this.spoken);
    this.banner.hidden = this.alerts.hidden = true;
    // Keys are for the agent, not for the notebook around it.
    this.root.setAttribute("data-lm-suppress-shortcuts", "true");
    for (const type of ["keydown", "keypress", "keyup"] as const) {
      this.root.addEventListener(type, (event) => {
        if (this.taken || (event.target as Element).closest("select, button, summary")) event.stopPropagation();
      });
    }
    this.root.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.maximised && !this.taken) this.maximise(this.maximised);
      else if (this.options.onKey?.(event)) {
        event.preventDefault();
        event.stopPropagation();
      }
    });
    this.root.addEventListener("pointerenter", () => this.ping());
    parent.append(this.root);
    Object.assign(this.root, { orchestratorLab: this });
    this.shade = this.wantedShade();
    this.root.dataset.shade = this.shade;
    this.sight = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        const name = (entry.target as HTMLElement).dataset.agent ?? "";
        if (entry.isIntersecting) this.seen.add(name);
        else this.seen.delete(name);
        this.panes.get(name)?.setSeen(entry.isIntersecting);
      }
      // Made outside of the page, it could not know the page's shade.
      this.setShade();
      this.sightChanged();
    });
    this.sizes = new ResizeObserver(() => requestAnimationFrame(() => this.fit()));
    this.sizes.observe(this.grid);
    this.themes = new MutationObserver(() => this.setShade());
    for (const element of [document.documentElement, document.body]) {
      this.themes.observe(element, { attributes: true, attributeFilter: ["data-jp-theme-light", "class", "style"] });
    }
    document.addEventListener("visibilitychange", this.onVisible);
    window.addEventListener("pointerdown", this.onPoint, true);
    window.addEventListener("keydown", this.onKey, true);
    this.ticking = window.setInterval(() => {
      if (!document.hidden) this.clock();
    }, 1000);
    this.stop = transport.onMessage((message, buffers) => this.heard(message as FromHost, buffers));
    const still = options.still;
    if (still) {
      this.tellAgents(still.agents ?? []);
      this.messages.tell(still.messages ?? []);
      for (const [agent, screen] of Object.entries(still.screens ?? {})) {
        const facts = { agent, repaint: true, cols: screen.cols, rows: screen.rows };
        this.pane(agent).still(facts, bytesOf(screen.data));
      }
    }
    this.send({ type: "hello" });
  }

  terminal(agent: string): Terminal | null {
    return this.panes.get(agent)?.screen ?? null;
  }

  drawn(agent: string): Promise<void> {
    return this.panes.get(agent)?.drawn() ?? Promise.resolve();
  }

  clock(): void {
    for (const name of this.seen) this.panes.get(name)?.clock();
  }

  note(text: string): void {
    this.trouble = text || null;
    this.showBanner();
  }

  now(): number {
    return this.options.clock?.() ?? performance.now();
  }

  dispose(): void {
    this.send({ type: "bye" });
    this.stop();
    window.clearInterval(this.ticking);
    window.clearTimeout(this.calm);
    window.clearTimeout(this.deafTimer);
    document.removeEventListener("visibilitychange", this.onVisible);
    window.removeEventListener("pointerdown", this.onPoint, true);
    window.removeEventListener("keydown", this.onKey, true);
    this.sight.disconnect();
    this.sizes.disconnect();
    this.themes.disconnect();
    for (const pane of this.panes.values()) pane.dispose();
    this.root.remove();
  }

  // what the host says ------------------------------------------------------------------------

  private heard(message: FromHost, buffers: DataView[]): void {
    if (message.type === "tick") this.tick(message, buffers);
    else if (message.type === "ack" && message.view === this.id) this.answered(message.n);
    else if (message.type === "again") this.again(message.view);
    else if (message.type === "error") {
      if (message.view !== undefined && message.view !== this.id) return;
      this.trouble = message.message;
      const held = this.taken ?? this.asked?.agent;
      if (message.agent === undefined || message.agent === held) {
        this.typing.discard();
        this.letGo();
      }
      this.showBanner();
    }
  }

  private tick(tick: Tick, buffers: DataView[]): void {
    if (tick.agents) this.tellAgents(tick.agents);
    if (tick.messages) this.messages.tell(tick.messages);
    if (tick.alerts) this.tellAlerts(tick.alerts);
    if (tick.gap !== undefined && tick.gap !== this.gap) {
      this.gap = tick.gap;
      this.showBanner();
    }
    (tick.panes ?? []).forEach((facts, place) => {
      const data = buffers[place];
      if (data && (this.seen.has(facts.agent) || this.panes.get(facts.agent)?.screen == null)) {
        this.pane(facts.agent).output(facts, bytesOf(data));
      } else this.panes.get(facts.agent)?.miss();
    });
  }

  /** The host asks who is there, or does not know this view (any more): it would be told nothing. */
  private again(view: string | null): void {
    if (view !== null && view !== this.id) return;
    if (view !== null) this.send({ type: "hello" });
    this.told = null;
    this.tellSight();
  }

  private pane(name: string): Pane {
    const known = this.panes.get(name);
    if (known) return known;
    const pane = new Pane({ name }, this, this.shade, this.options.controls ?? true);
    this.panes.set(name, pane);
    this.grid.append(pane.element);
    this.sight.observe(pane.element);
    this.arrange();
    return pane;
  }

  private tellAgents(agents: AgentFacts[]): void {
    const names = agents.map((agent) => agent.name);
    for (const [name, pane] of this.panes) {
      if (names.includes(name)) continue;
      if (this.taken === name) this.letGo();
      if (this.maximised === name) this.maximise(name);
      this.sight.unobserve(pane.element);
      pane.dispose();
      this.panes.delete(name);
      this.seen.delete(name);
    }
    const news: string[] = [];
    for (const agent of agents) {
      const pane = this.pane(agent.name);
      const before = pane.element.dataset.state;
      pane.tell(agent);
      if (before !== agent.state && ["waiting", "failed", "limited"].includes(agent.state ?? "")) {
        news.push(`${agent.name} is ${agent.state}`);
      }
    }
    if (news.length) setText(this.spoken, news.join(", "));
    this.messages.setAgents(names);
    this.arrange();
  }

  private tellAlerts(alerts: AlertFacts[]): void {
    this.alerts.hidden = alerts.length === 0;
    this.alerts.replaceChildren(
      ...alerts.map((alert) => {
        const item = make("li", "olab-alert", null, { "data-level": alert.level ?? "warning" });
        item.append(make("strong", "", alert.level ?? "alert"), ` ${alert.message ?? ""}`);
        return item;
      }),
    );
  }

  private showBanner(): void {
    const busy = "View only: the kernel runs a cell that does not await, and hears nothing until it ends.";
    const text = this.trouble ?? this.gap ?? [this.deaf ? busy : "", this.untyped].filter(Boolean).join(" ");
    setText(this.banner, text);
    this.banner.hidden = !text;
    this.root.classList.toggle("olab-deaf", this.deaf);
  }

  // what is told to the host ------------------------------------------------------------------

  private send(message: object): number {
    const number = ++this.number;
    if (this.options.acks) {
      this.unanswered.set(number, performance.now());
      this.awaitAnswer();
    }
    this.transport.send({ ...message, view: this.id, n: number });
    return number;
  }

  private awaitAnswer(): void {
    if (this.deafTimer || this.deaf) return;
    this.deafTimer = window.setTimeout(() => {
      this.deafTimer = 0;
      const oldest = Math.min(...this.unanswered.values());
      if (this.unanswered.size && performance.now() - oldest >= DEAF_MS - 20) {
        this.deaf = true;
        this.forgetTyped();
        this.letGo();
        this.showBanner();
      } else if (this.unanswered.size) this.awaitAnswer();
    }, DEAF_MS);
  }

  private answered(number: number): void {
    for (const sent of [...this.unanswered.keys()]) if (sent <= number) this.unanswered.delete(sent);
    if (this.deaf && this.unanswered.size === 0) {
      this.deaf = false;
      this.showBanner();
    }
    this.typing.answered(number);
    if (this.asked && number >= this.asked.number) {
      const { agent } = this.asked;
      this.asked = null;
      this.nowTaken(agent);
    }
  }

  private ping(): void {
    if (this.options.acks && this.unanswered.size === 0) this.send({ type: "ping" });
  }

  repaint(agent: string): void {
    this.send({ type: "repaint", agent });
  }

  keys(agent: string, data: string): void {
    if (this.taken !== agent || this.deaf) return;
    this.typing.type(agent, data);
  }

  /** What was typed to a host that does not listen would reach another screen. */
  private forgetTyped(): void {
    const [agent] = this.typing.discard();
    if (agent !== undefined) {
      this.untyped = `What you typed last into ${agent} was not sent, but for the first of it, which comes late.`;
    } else if (this.typing.underway) this.untyped = "What you typed last comes late.";
  }

  takeOver(agent: string): void {
    this.letGo();
    this.trouble = null;
    this.untyped = "";
    this.showBanner();
    if (!this.options.acks) {
      this.nowTaken(agent);
      return;
    }
    // Only a host that hears may be typed to: what it hears much later would meet another screen.
    this.panes.get(agent)?.waits(true);
    this.asked = { agent, number: this.send({ type: "ping" }) };
  }

  private nowTaken(agent: string): void {
    this.taken = agent;
    this.hold += 1;
    this.root.classList.add("olab-typing");
    this.panes.get(agent)?.setTaken(true);
    setText(this.spoken, `You are typing into ${agent}; Shift Escape lets go.`);
  }

  letGo(): void {
    if (this.asked) this.panes.get(this.asked.agent)?.waits(false);
    this.asked = null;
    if (this.taken === null) return;
    const pane = this.panes.get(this.taken);
    this.taken = null;
    this.root.classList.remove("olab-typing");
    pane?.setTaken(false);
    pane?.element.focus({ preventScroll: true });
  }

  /**
   * Whoever clicks into a pane and types means the pane. A notebook takes the focus to its cell with each click, and
   * would take letters for commands: "d d" deletes the cell.
   */
  private keepFromNotebook(event: KeyboardEvent): void {
    if (!this.pointed || event.ctrlKey || event.metaKey || event.altKey) return;
    const active = document.activeElement;
    const around = !active || active.contains(this.root) || active.matches(".olab-pane");
    const meant = around && !!this.options.onKey?.(event);
    if (!around || (!meant && event.key.length !== 1 && event.key !== "Backspace" && event.key !== "Delete")) return;
    event.stopImmediatePropagation();
    event.preventDefault();
  }

  // arrangement -------------------------------------------------------------------------------

  maximise(agent: string): void {
    this.maximised = this.maximised === agent ? null : agent;
    for (const [name, pane] of this.panes) {
      pane.setMaximised(name === this.maximised);
      pane.element.hidden = this.maximised !== null && name !== this.maximised;
    }
    this.root.classList.toggle("olab-one", this.maximised !== null);
    this.options.onMaximise?.(this.maximised);
    requestAnimationFrame(() => this.fit());
  }

  private arrange(): void {
    const number = this.panes.size;
    this.root.dataset.size = number <= 2 ? "few" : number <= 6 ? "some" : "many";
  }

  private fit(): void {
    for (const pane of this.panes.values()) pane.fit();
  }

  private sightChanged(): void {
    window.clearTimeout(this.calm);
    this.calm = window.setTimeout(() => this.tellSight(), this.told ? CALM_MS : 0);
  }

  private tellSight(): void {
    const agents = document.hidden ? [] : [...this.seen].filter((name) => this.panes.has(name)).sort();
    const told = agents.join("\n");
    if (told === this.told) {
      // Out of sight for a moment, of which the host knows nothing.
      for (const name of agents) if (this.panes.get(name)?.missing) this.repaint(name);
      return;
    }
    this.told = told;
    this.send({ type: "watch", agents });
  }

  private wantedShade(): Shade {
    const { theme } = this.options;
    return theme === "light" || theme === "dark" ? theme : shadeOf(this.root.parentElement ?? this.root);
  }

  private setShade(): void {
    const shade = this.wantedShade();
    if (shade === this.shade) return;
    this.shade = shade;
    this.root.dataset.shade = shade;
    for (const pane of this.panes.values()) pane.setShade(shade);
  }
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

export type { MessageFacts };
