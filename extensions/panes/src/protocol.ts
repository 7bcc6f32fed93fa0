import type { Agent, Alert, Message } from "../../shared/src/api";

/** What host and view say to each other. The host is a kernel (comm) or the dashboard's server (websocket). */

/** Some facts of an agent; what is not told has not changed. */
export type AgentFacts = Pick<Agent, "name"> & {
  [Key in "role" | "kind" | "state" | "state_s" | "turns" | "input_tokens" | "output_tokens" | "queued" | "error"]?:
    Agent[Key] | null;
} & { dialog?: { subject?: string | null } | null };

/** A message between agents, or what is new of one that is known. */
export type MessageFacts = Pick<Message, "message_id"> &
  Partial<Pick<Message, "sender" | "recipient" | "status" | "error_message">> & { content?: string; at?: string };

export type AlertFacts = Partial<Pick<Alert, "alert_id" | "level" | "agent" | "message">>;

export interface PaneFacts {
  agent: string;
  repaint: boolean;
  cols: number;
  rows: number;
}

export interface Tick {
  type: "tick";
  panes?: PaneFacts[];
  agents?: AgentFacts[];
  messages?: MessageFacts[];
  alerts?: AlertFacts[];
  gap?: string | null;
}

export interface Ack {
  type: "ack";
  view: string;
  n: number;
}

/** The host asks who is there (null), or says to one view that it does not know it. */
export interface Again {
  type: "again";
  view: string | null;
}

/** What the host could not do, such as typing into a pane whose program has ended. */
export interface Trouble {
  type: "error";
  message: string;
  /** The view and the pane that it is about; without them it is about all. */
  view?: string;
  agent?: string;
}

export type FromHost = Tick | Ack | Again | Trouble;

export interface Transport {
  send(message: object): void;
  onMessage(handler: (message: object, buffers: DataView[]) => void): () => void;
}

export interface Still {
  screens?: Record<string, { cols: number; rows: number; data: DataView }>;
  agents?: AgentFacts[];
  messages?: MessageFacts[];
}

export interface Options {
  /** Whether panes may be taken over. */
  controls?: boolean;
  theme?: "auto" | "light" | "dark";
  /** Whether the host answers each message with an ack; then the view knows when it does not listen. */
  acks?: boolean;
  /** What is shown until the host says something. */
  still?: Still | null;
  /** Stands above the panes. */
  above?: HTMLElement;
  /** Stands beside the panes, in the place of the messages. */
  beside?: HTMLElement;
  /** Milliseconds of the clock by which states last; the page's own by default. */
  clock?: () => number;
  /** Does what a key says that is meant for no agent; returns whether it says anything. */
  onKey?: (event: KeyboardEvent) => boolean;
  /** Called when the arrangement of the page has to follow (a maximised pane). */
  onMaximise?: (agent: string | null) => void;
}
