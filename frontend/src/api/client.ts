/** Requests to modalflow's API, below the address of Airflow's page. The browser sends Airflow's cookie. */

export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** Return the address of a path of the API. Airflow's page names its own root, also behind a path prefix. */
export function address(path: string): string {
  return new URL(`modalflow/ui/api${path}`, document.baseURI).href;
}

/** Return the address of a file of the views. */
export function fileAddress(name: string): string {
  return new URL(`modalflow/ui/static/${name}`, document.baseURI).href;
}

/** Return a path with its parts escaped: `pathOf("run", "etl", "manual__1")`. */
export function pathOf(...parts: (string | number)[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join("");
}

async function failure(response: Response): Promise<ApiError> {
  let detail = "";
  try {
    const body = (await response.json()) as { detail?: unknown };
    detail = typeof body.detail === "string" ? body.detail : "";
  } catch {
    // A proxy answers with a page of its own.
  }
  return new ApiError(response.status, detail || response.statusText || String(response.status));
}

/** Return the text of an answer. Raise ApiError for a status other than 2xx, and for no connection (status 0). */
export async function get(path: string, signal?: AbortSignal): Promise<string> {
  const response = await request(path, { signal: signal ?? null });
  return response.text();
}

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  const response = await send(path, body);
  return (await response.json()) as T;
}

/** Hand every line of a stream of JSON texts to `onLine`. */
export async function stream<T>(path: string, signal: AbortSignal, onLine: (line: T) => void): Promise<void> {
  const response = await send(path, {}, signal);
  const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
    const lines = (rest + (value ?? "")).split("\n");
    rest = done ? "" : (lines.pop() ?? "");
    for (const line of lines) if (line.trim()) onLine(JSON.parse(line) as T);
    if (done) return;
  }
}

function send(path: string, body: unknown, signal?: AbortSignal): Promise<Response> {
  const headers = { "content-type": "application/json" };
  return request(path, { method: "POST", headers, body: JSON.stringify(body), signal: signal ?? null });
}

async function request(path: string, options: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(address(path), { credentials: "same-origin", ...options });
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, error instanceof Error ? error.message : String(error));
  }
  if (!response.ok) throw await failure(response);
  return response;
}
