/** The web API, under the login of the Jupyter server that served this page. */

export interface Dialog {
  dialog_id: string;
  kind: string;
  subject: string;
  options: string[];
}

export interface Agent {
  name: string;
  role: string;
  kind: string;
  model: string | null;
  state: string;
  state_s: number | null;
  turns: number;
  queued: number;
  restarts: number;
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

export interface Guard {
  guard_id: string;
  message: string;
}

export interface Status {
  name: string;
  status: string;
  run_id: string;
  run_dir: string;
  monitoring?: 'on' | 'paused' | 'off';
  agents: Agent[];
  alerts: Alert[];
  guards: Guard[];
  totals: { states: Record<string, number>; turns: number; queued: number; input_tokens: number; output_tokens: number };
  events: number;
  problem: string | null;
  gap?: string | null;
}

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

export interface ClusterFacts {
  name: string;
  run_id: string;
  started_at: string;
}

/** The server's base, from where this page lies: it may be below a hub's or a proxy's path. */
export const PAGE = new URL('.', location.href);

function cookie(name: string): string {
  const found = document.cookie.split('; ').find(one => one.startsWith(`${name}=`));
  return found ? found.slice(name.length + 1) : '';
}

async function request<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(new URL(`api/${path}`, PAGE), { credentials: 'same-origin', cache: 'no-store', ...init });
  } catch {
    throw new Error('the server does not answer: is it still running?');
  }
  const data = await response.json().catch(() => null);
  if (!response.ok) {
    if (response.status === 403 && !data?.error?.message) {
      throw new Error('you are no longer logged in: load the page again');
    }
    throw new Error(data?.error?.message ?? data?.message ?? `the server answered ${response.status}`);
  }
  return data as T;
}

function joined(parts: string[]): string {
  return parts.map(encodeURIComponent).join('/');
}

export function get<T>(parts: string[], query: Record<string, string> = {}): Promise<T> {
  const search = new URLSearchParams(query).toString();
  return request(joined(parts) + (search && `?${search}`), {});
}

export function post<T>(parts: string[], body: object = {}): Promise<T> {
  return request(joined(parts), {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'X-XSRFToken': cookie('_xsrf') },
    body: JSON.stringify(body)
  });
}
