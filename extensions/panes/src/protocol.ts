/** What host and view say to each other. The host is a kernel (comm) or the dashboard's server (websocket). */

export interface AgentFacts {
  name: string;
  role?: string | null;
  kind?: string | null;
  state?: string | null;
  /** Seconds in this state when the facts were told. */
  state_s?: number | null;
  turns?: number | null;
  input_tokens?: number | null;
  output_tokens?: number | null;
  queued?: number | null;
  dialog?: { subject?: string | null } | null;
  error?: string | null;
}

/** A message between agents, or what is new of one that is known. */
export interface MessageFacts {
  message_id: string;
  sender?: string;
  recipient?: string;
  content?: string;
  status?: string;
  at?: string;
  error_message?: string | null;
}

export interface AlertFacts {
  alert_id?: string;
  level?: string;
  agent?: string | null;
  message?: string;
}

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
  /** Called when the arrangement of the page has to follow (a maximised pane). */
  onMaximise?: (agent: string | null) => void;
}
