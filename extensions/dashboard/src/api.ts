/** The web API, under the login of the Jupyter server that served this page. */

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
