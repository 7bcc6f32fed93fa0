import { URLExt } from '@jupyterlab/coreutils';
import { ServerConnection } from '@jupyterlab/services';
import { TranslationBundle } from '@jupyterlab/translation';
import type { ClusterFacts, Status } from '../../shared/src/api';

/** The sentence that the server says of a refused request. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly type: string,
    readonly status: number
  ) {
    super(message);
  }
}

/** The web API of Orchestrator Lab, under the server's own login. */
export class Api {
  constructor(
    readonly settings: ServerConnection.ISettings,
    private _trans: TranslationBundle
  ) {}

  /** The address of a path below the API. */
  url(...parts: string[]): string {
    return URLExt.join(this.settings.baseUrl, 'orchestrator-lab', 'api', ...parts);
  }

  /** The address of the websocket; a token stands in it, since a browser sends no headers there. */
  get socketUrl(): string {
    const url = URLExt.join(this.settings.wsUrl, 'orchestrator-lab', 'api', 'ws');
    const { token, appendToken } = this.settings;
    return appendToken && token ? `${url}?token=${encodeURIComponent(token)}` : url;
  }

  /** The address of the dashboard's page. */
  get pageUrl(): string {
    return URLExt.join(this.settings.baseUrl, 'orchestrator-lab') + '/';
  }

  async get<T>(path: string[], query: Record<string, string> = {}): Promise<T> {
    const search = new URLSearchParams(query).toString();
    return this._request<T>(
      this.url(...path.map(encodeURIComponent)) + (search && `?${search}`),
      {}
    );
  }

  async post<T>(path: string[], body: object = {}): Promise<T> {
    return this._request<T>(this.url(...path.map(encodeURIComponent)), {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify(body)
    });
  }

  clusters(): Promise<{ clusters: ClusterFacts[] }> {
    return this.get(['clusters']);
  }

  status(cluster: string): Promise<Status> {
    return this.get(['clusters', cluster, 'status']);
  }

  answer(cluster: string, agent: string, dialogId: string, option: number): Promise<unknown> {
    return this.post(['clusters', cluster, 'agents', agent, 'dialog'], {
      dialog_id: dialogId,
      option
    });
  }

  async terminal(cluster: string, agent: string, takeOver: boolean): Promise<string> {
    const path = ['clusters', cluster, 'agents', agent, 'terminal'];
    return (await this.post<{ name: string }>(path, { take_over: takeOver })).name;
  }

  private async _request<T>(url: string, init: RequestInit): Promise<T> {
    const response = await ServerConnection.makeRequest(url, init, this.settings);
    const text = await response.text();
    let data: any = null;
    try {
      data = text ? JSON.parse(text) : null;
    } catch {
      // A proxy's page instead of an answer: its status says what there is to say.
    }
    if (!response.ok) {
      const problem = data?.error;
      throw new ApiError(
        problem?.message ??
          data?.message ??
          this._trans.__('the server answered %1 %2', response.status, response.statusText),
        problem?.type ?? 'HTTPError',
        response.status
      );
    }
    return data as T;
  }
}
