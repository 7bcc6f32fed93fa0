/** What the web API tells, in the words of its OpenAPI document. */

/** A question that a program puts to its user. */
export interface Dialog {
  dialog_id: string;
  kind: string;
  subject: string;
  options: string[];
  opened_at: string | null;
}

/** An agent, as the supervisor describes it. */
export interface Agent {
  name: string;
  role: string;
  kind: string;
  model: string | null;
  state: string;
  /** Seconds in this state when it was told. */
  state_s: number | null;
  turns: number;
  queued: number;
  restarts: number;
  input_tokens: number | null;
  output_tokens: number | null;
  dialog: Dialog | null;
  error: string | null;
  cpu_percent: number | null;
  rss_bytes: number | null;
}

export interface Alert {
  alert_id: string;
  level: string;
  agent: string | null;
  rule: string;
  message: string;
  opened_at: string;
  acknowledged_at: string | null;
  acknowledged_by?: string | null;
  resolved_at?: string | null;
}

/** Levels of alerts, the graver the later. */
export const LEVELS = ['info', 'warning', 'error', 'critical'];

/** What pauses delivery. */
export interface Guard {
  guard_id: string;
  message: string;
}

/** What the supervisor knows now. */
export interface Status {
  name: string;
  status: string;
  run_id: string;
  run_dir: string;
  monitoring?: 'on' | 'paused' | 'off';
  agents: Agent[];
  alerts: Alert[];
  guards: Guard[];
  totals: {
    states: Record<string, number>;
    turns: number;
    queued: number;
    input_tokens: number;
    output_tokens: number;
  };
  events: number;
  problem: string | null;
  gap?: string | null;
}

/** A message between agents: a row of the table. */
export interface Message {
  seq: number;
  message_id: string;
  sender: string;
  recipient: string;
  status: string;
  content: string | null;
  queued_at: string | null;
  error_message?: string | null;
}

/** A cluster that runs on the server's machine. */
export interface ClusterFacts {
  name: string;
  run_id: string;
  started_at: string;
  supervisor_alive: boolean;
}

/** What the websocket tells. */
export interface Frame {
  event: string;
  cluster: string | null;
  /** The journal's number of what is told, null for what is not in the journal. */
  seq: number | null;
  data: any;
}
