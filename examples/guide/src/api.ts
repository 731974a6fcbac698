/** The application's own API. */

export interface User {
  id: string;
  name: string;
  isAdmin: boolean;
}

export interface Member {
  user: string;
  may: "read" | "write";
  isHere: boolean;
  isSuspended: boolean;
}

export async function api<T>(method: string, path: string, json?: unknown): Promise<T> {
  const answer = await fetch(`/api/${path}`, {
    method,
    headers: { "content-type": "application/json" },
    body: json === undefined ? null : JSON.stringify(json),
  });
  if (!answer.ok) {
    throw new Failure(answer.status, (await answer.json()).detail);
  }
  return answer.json();
}

export class Failure extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** A token of Roomkey for whoever is logged in; `null` if nobody is. */
export async function fetchToken(): Promise<string | null> {
  try {
    return (await api<{ token: string }>("GET", "token")).token;
  } catch (error) {
    if (error instanceof Failure && error.status === 401) {
      return null;
    }
    throw error; // the client asks again later
  }
}
