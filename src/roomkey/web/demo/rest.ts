/** The REST interface, as far as this page uses it. */

import { api } from "./address";

/** A request that did not succeed. `status` is 0 when no answer came. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

interface Options {
  /** The token of a session. Without one the caller is whoever develops: `--dev` lets them do everything. */
  token?: string;
  json?: unknown;
  accept?: string;
  signal?: AbortSignal;
}

export async function request(method: string, path: string, options: Options = {}): Promise<Response> {
  const headers = new Headers({ accept: options.accept ?? "application/json" });
  if (options.token !== undefined) {
    headers.set("authorization", `Bearer ${options.token}`);
  }
  if (options.json !== undefined) {
    headers.set("content-type", "application/json");
  }
  const body = options.json === undefined ? null : JSON.stringify(options.json);
  let answer: Response;
  try {
    answer = await fetch(api(path), { method, headers, body, credentials: "omit", signal: options.signal ?? null });
  } catch {
    throw new Refusal(0, "The server cannot be reached.");
  }
  if (!answer.ok) {
    throw new Refusal(answer.status, await explanation(answer));
  }
  return answer;
}

export async function json<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await request(method, path, options);
  return (await answer.json()) as T;
}

/** What an RFC 9457 problem says. */
async function explanation(answer: Response): Promise<string> {
  try {
    const problem = (await answer.json()) as { detail?: string; title?: string };
    return problem.detail ?? problem.title ?? answer.statusText;
  } catch {
    return answer.statusText;
  }
}
