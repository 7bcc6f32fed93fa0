/** What a run's folder says, read from its manifest and journal. */

import type { TranslationBundle } from '@jupyterlab/translation';

export interface IRunAgent {
  name: string;
  kind: string;
  role: string;
  state: string;
  turns: number;
  messages: number;
}

export interface IRunMessage {
  at: string;
  sender: string;
  recipient: string;
  status: string;
  content: string;
}

export interface IRunSummary {
  events: number;
  status: string | null;
  duration: number | null;
  agents: IRunAgent[];
  messages: IRunMessage[];
  turns: number;
  inputTokens: number | null;
  outputTokens: number | null;
  alerts: number;
  dialogs: number;
  /** What is wrong with the journal, when not all of it could be read. */
  problem: string | null;
}

const RUNGS = [
  'queued',
  'claimed',
  'written',
  'accepted',
  'started',
  'answered',
  'refused',
  'expired',
  'failed',
  'uncertain'
];

/** File in which a run's folder says what it is. */
export const MANIFEST = 'manifest.json';

/** A run's manifest, null for any other file. */
export function readManifest(text: string): any | null {
  let read: any;
  try {
    read = JSON.parse(text);
  } catch {
    return null;
  }
  return typeof read?.run_id === 'string' && typeof read?.schema_version === 'number' ? read : null;
}

/** Fold a journal into a summary. A torn last line is left out. */
export function summarise(journal: string, trans: Pick<TranslationBundle, '__'>): IRunSummary {
  const agents = new Map<string, IRunAgent>();
  const messages = new Map<string, IRunMessage>();
  const usage = new Map<string, [number | null, number | null]>();
  const summary: IRunSummary = {
    events: 0,
    status: null,
    duration: null,
    agents: [],
    messages: [],
    turns: 0,
    inputTokens: null,
    outputTokens: null,
    alerts: 0,
    dialogs: 0,
    problem: null
  };
  const lines = journal.split('\n');
  let first: number | null = null;
  for (let number = 0; number < lines.length; number++) {
    if (!lines[number]) {
      continue;
    }
    let event: any;
    try {
      event = JSON.parse(lines[number]);
    } catch {
      summary.problem =
        number === lines.length - 1
          ? trans.__('the last line of the journal is torn')
          : trans.__('line %1 of the journal cannot be read', number + 1);
      continue;
    }
    summary.events += 1;
    const attributes = event.attributes ?? {};
    const agent = agents.get(event.agent);
    first ??= event.monotonic_s ?? null;
    if (first !== null && typeof event.monotonic_s === 'number') {
      summary.duration = Math.max(summary.duration ?? 0, event.monotonic_s - first);
    }
    const [area, what] = String(event.event).split('.');
    if (event.event === 'run.ended') {
      summary.status = attributes.status ?? null;
    } else if (event.event === 'agent.added') {
      agents.set(attributes.name, {
        name: attributes.name,
        kind: attributes.kind ?? '',
        role: attributes.role ?? '',
        state: 'unknown',
        turns: 0,
        messages: 0
      });
    } else if (event.event === 'agent.state' && agent) {
      agent.state = attributes.state;
    } else if (event.event === 'message.queued') {
      messages.set(event.message_id, {
        at: event.at,
        sender: attributes.sender,
        recipient: attributes.recipient,
        status: 'queued',
        content: attributes.content ?? ''
      });
      const recipient = agents.get(attributes.recipient);
      if (recipient) {
        recipient.messages += 1;
      }
    } else if (area === 'message' && RUNGS.includes(what)) {
      const message = messages.get(event.message_id);
      if (message) {
        message.status = what;
      }
    } else if (event.event === 'turn.ended') {
      summary.turns += 1;
      if (agent) {
        agent.turns += 1;
      }
    } else if (event.event === 'turn.usage') {
      usage.set(event.turn_id, [attributes.input_tokens ?? null, attributes.output_tokens ?? null]);
    } else if (event.event === 'alert.opened') {
      summary.alerts += 1;
    } else if (event.event === 'dialog.opened') {
      summary.dialogs += 1;
    }
  }
  for (const [input, output] of usage.values()) {
    summary.inputTokens = sum(summary.inputTokens, input);
    summary.outputTokens = sum(summary.outputTokens, output);
  }
  summary.agents = [...agents.values()];
  summary.messages = [...messages.values()];
  return summary;
}

/** What is unknown stays so, and is never taken for none. */
function sum(total: number | null, more: number | null): number | null {
  return more === null ? total : (total ?? 0) + more;
}
