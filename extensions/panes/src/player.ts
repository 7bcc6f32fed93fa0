import { PlayBar } from "../../shared/src/playbar";
import {
  Playhead,
  Track,
  type IHappening,
  type IPicture,
  type IPlayed,
  type IStretch,
  type ISurface,
} from "../../shared/src/playing";
import type { AgentFacts, Options, PaneFacts, Transport } from "./protocol";
import { Talk, type Told } from "./talk";
import { createView, type View } from "./view";

/** Milliseconds without an answer after which the host is taken for busy. */
const DEAF_MS = 1000;

/** What a page knows of a film before it asks for anything. */
export interface FilmFacts {
  title: string;
  at: number;
  duration: number;
  agents: AgentFacts[];
  colors: Record<string, string>;
  marks: { at: number; kind: string; who: string; text: string }[];
  /** What is not shown, and why. */
  lacks?: string[];
}

export interface PlayerOptions {
  film: FilmFacts;
  theme?: Options["theme"];
}

/** An event as the host tells it: its instant and the bytes of its output, its new size, or the facts that change. */
type ToldEvent = [number, "o", number] | [number, "r", [number, number]] | [number, "f", AgentFacts];

interface ToldPane {
  agent: string;
  to: number | null;
  next: number | null;
  picture: [number, number] | null;
  facts: AgentFacts | null;
  events: ToldEvent[];
}

type Answer = { view: string; n: number } & (
  | { type: "shown"; panes: ToldPane[] }
  | ({ type: "talk" } & Told)
  | { type: "progress"; agent: string; done: number }
  | { type: "error"; message: string }
);

interface Waiting {
  done(answer: Answer, buffers: DataView[]): void;
  failed(error: Error): void;
}

let count = 0;

/** Asks the host, one question at a time for each thing; says when it does not answer. */
class Desk {
  private readonly id = `p${Date.now().toString(36)}${(count++).toString(36)}`;
  private readonly waiting = new Map<number, Waiting>();
  private number = 0;
  private timer = 0;
  private wants: {
    agent: string;
    at: number;
    anew: boolean;
    waiting: (stretch: Promise<IStretch<AgentFacts>>) => void;
  }[] = [];
  private readonly stop: () => void;

  constructor(
    private readonly link: Transport,
    private readonly said: (text: string) => void,
  ) {
    this.stop = link.onMessage((message, buffers) => this.heard(message as Answer, buffers));
  }

  dispose(): void {
    this.stop();
    window.clearTimeout(this.timer);
    this.waiting.clear();
  }

  async talk(at: number): Promise<Told> {
    const [answer] = await this.ask({ type: "talk", at });
    return answer as Answer & Told;
  }

  /** What several panes need at the same time is asked for in one message. */
  stretch(agent: string, at: number, anew: boolean): Promise<IStretch<AgentFacts>> {
    return new Promise((waiting) => {
      this.wants.push({ agent, at, anew, waiting });
      if (this.wants.length === 1) queueMicrotask(() => this.need());
    });
  }

  private need(): void {
    const wants = this.wants;
    this.wants = [];
    const answer = this.ask({ type: "need", wants: wants.map(({ agent, at, anew }) => ({ agent, at, anew })) });
    wants.forEach((want, place) => {
      want.waiting(
        answer.then(([told, buffers]) => {
          const pane = told.type === "shown" ? told.panes[place] : undefined;
          if (!pane) throw new Error(`${want.agent} has no recording here`);
          return stretchOf(pane, bytesOf(buffers[2 * place]), bytesOf(buffers[2 * place + 1]));
        }),
      );
    });
  }

  private ask(message: object): Promise<[Answer, DataView[]]> {
    const number = ++this.number;
    return new Promise((done, failed) => {
      this.waiting.set(number, { done: (answer, buffers) => done([answer, buffers]), failed });
      this.watch();
      this.link.send({ ...message, view: this.id, n: number });
    });
  }

  private watch(): void {
    window.clearTimeout(this.timer);
    if (this.waiting.size === 0) this.said("");
    else {
      this.timer = window.setTimeout(
        () => this.said("The kernel does not answer: it runs a cell, or is gone. This goes on when it answers."),
        DEAF_MS,
      );
    }
  }

  private heard(answer: Answer, buffers: DataView[]): void {
    const waiting = answer.view === this.id ? this.waiting.get(answer.n) : undefined;
    if (!waiting) return;
    if (answer.type === "progress") {
      window.clearTimeout(this.timer);
      this.said(`Reading the recording of ${answer.agent}: ${Math.round(100 * answer.done)} %`);
      return;
    }
    this.waiting.delete(answer.n);
    this.watch();
    if (answer.type === "error") waiting.failed(new Error(answer.message));
    else waiting.done(answer, buffers);
  }
}

function stretchOf(pane: ToldPane, picture: Uint8Array, output: Uint8Array): IStretch<AgentFacts> {
  let place = 0;
  const events = pane.events.map((told): IHappening<AgentFacts> => {
    const at = told[0];
    if (told[1] === "o") {
      const data = output.subarray(place, place + told[2]);
      place += told[2];
      return { at, kind: "output", data };
    }
    return told[1] === "r" ? { at, kind: "resize", size: told[2] } : { at, kind: "facts", facts: told[2] };
  });
  return {
    picture: pane.picture && { cols: pane.picture[0], rows: pane.picture[1], data: picture },
    facts: pane.facts,
    events,
    to: pane.to ?? Infinity,
    next: pane.next,
  };
}

/** The host of a view of panes, which tells it what was recorded as a cluster would tell what happens. */
class Film implements IPlayed, Transport {
  readonly duration: number;
  private readonly tracks = new Map<string, Track<AgentFacts>>();
  private readonly facts = new Map<string, AgentFacts>();
  /** When each agent came into its state. */
  private readonly since = new Map<string, number>();
  private watched: string[] = [];
  private tell: (message: object, buffers: DataView[]) => void = () => undefined;
  private factsChanged = false;
  private now: number;
  view: View | null = null;

  constructor(
    film: FilmFacts,
    desk: Desk,
    private readonly talk: Talk,
    private readonly failed: (error: unknown) => void,
  ) {
    this.duration = film.duration;
    this.now = film.at;
    for (const facts of film.agents) {
      const agent = facts.name;
      this.learn(agent, facts, film.at);
      const tape = { stretch: (after: number, anew: boolean) => desk.stretch(agent, after, anew) };
      this.tracks.set(agent, new Track(tape, this.surface(agent)));
    }
  }

  get agents(): AgentFacts[] {
    return [...this.facts.values()].map((facts) => ({
      ...facts,
      state_s: facts.state == null ? null : Math.max(0, this.now - (this.since.get(facts.name) ?? this.now)),
    }));
  }

  async show(at: number): Promise<void> {
    this.now = at;
    await Promise.all(this.watched.map((agent) => this.tracks.get(agent)?.show(at)));
    if (this.factsChanged) {
      this.factsChanged = false;
      this.tell({ type: "tick", agents: this.agents }, []);
    }
  }

  get upcoming(): number | null {
    const all = this.watched.map((agent) => this.tracks.get(agent)?.upcoming ?? null);
    return all.includes(null) ? null : Math.min(this.talk.upcoming, ...(all as number[]));
  }

  // what the view of panes says -----------------------------------------------------------------

  send(message: object): void {
    const { type, agents, agent } = message as { type: string; agents?: string[]; agent?: string };
    if (type === "watch") {
      const fresh = (agents ?? []).filter((name) => !this.watched.includes(name));
      this.watched = agents ?? [];
      for (const name of fresh) this.tracks.get(name)?.anew();
    } else if (type === "repaint" && agent !== undefined) this.tracks.get(agent)?.anew();
    else return;
    this.show(this.now).catch(this.failed);
  }

  onMessage(handler: (message: object, buffers: DataView[]) => void): () => void {
    this.tell = handler;
    return () => {
      this.tell = () => undefined;
      for (const track of this.tracks.values()) track.end();
    };
  }

  private surface(agent: string): ISurface<AgentFacts> {
    const say = async (pane: PaneFacts, data: Uint8Array): Promise<void> => {
      this.tell({ type: "tick", panes: [pane] }, [new DataView(data.buffer, data.byteOffset, data.byteLength)]);
      await this.view?.drawn(agent);
    };
    const pane = { agent, repaint: false, cols: 80, rows: 24 };
    const begin = (cols: number, rows: number, data: Uint8Array): Promise<void> => {
      Object.assign(pane, { cols, rows });
      return say({ ...pane, repaint: true }, data);
    };
    return {
      begin: ({ cols, rows, data }: IPicture) => begin(cols, rows, data as Uint8Array),
      write: (data) => say(pane, data as Uint8Array),
      resize: (cols, rows) => begin(cols, rows, new Uint8Array()),
      tell: (facts, at) => this.learn(agent, facts, at),
    };
  }

  private learn(agent: string, facts: AgentFacts, at: number): void {
    const known = { ...this.facts.get(agent), ...facts, name: agent };
    if (facts.state !== undefined) this.since.set(agent, at - (facts.state_s ?? 0));
    this.facts.set(agent, known);
    this.factsChanged = true;
  }
}

export interface Player {
  readonly view: View;
  readonly head: Playhead;
  dispose(): void;
}

/** Plays recorded panes in the view that shows living ones. */
export function createPlayer(parent: HTMLElement, link: Transport, options: PlayerOptions): Player {
  const { film } = options;
  const lacks = film.lacks?.join(" ") ?? "";
  let head: Playhead | null = null;
  let view: View | null = null;
  const say = (text: string): void => view?.note(text || lacks);
  const failed = (error: unknown): void => say(error instanceof Error ? error.message : String(error));
  const jump = (at: number): void => void head?.seek(at);
  const desk = new Desk(link, say);
  const talk = new Talk((at) => desk.talk(at), jump);
  const bar = new PlayBar(() => head, {
    prefix: "olab-play",
    button: "olab-button",
    duration: film.duration,
    marks: film.marks.map((mark) => ({ ...mark, color: film.colors[mark.who] ?? "#777777" })),
  });
  const host = new Film(film, desk, talk, failed);
  const changed = (): void => {
    bar.show();
    talk.show(head?.now ?? film.at);
    view?.clock();
  };
  head = new Playhead(host, film.at, changed, failed);
  bar.set();
  view = createView(parent, host, {
    controls: false,
    theme: options.theme,
    above: bar.element,
    beside: talk.element,
    clock: () => 1000 * (head?.now ?? 0),
    onKey: (event) => bar.key(event),
    still: { agents: host.agents },
  });
  host.view = view;
  say("");
  changed();
  const shown = view;
  const player = {
    view: shown,
    head,
    dispose: () => {
      head?.pause();
      desk.dispose();
      shown.dispose();
    },
  };
  return player;
}

function bytesOf(view: DataView | undefined): Uint8Array {
  return view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array();
}
