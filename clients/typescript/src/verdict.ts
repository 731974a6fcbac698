/** What the end of a socket, or the answer to a request, means: one table from stable codes to states. */

/** How a session, a room or a document is for its user. */
export type Status =
  | { readonly state: "connecting" | "active" | "readonly" }
  /** Waits until it is let in again, and asks by itself. `reason` is what an operator said. */
  | { readonly state: "suspended"; readonly reason: string | null }
  /** Needs a new token: `session.use(token)` goes on. */
  | { readonly state: "expired"; readonly code: string }
  /** It is over. `code` is the stable word for why, `reason` what an operator said. */
  | { readonly state: "removed"; readonly code: string; readonly reason: string | null }
  /** Out of reach, and tries again by itself; `unsaved` changes are only here. */
  | { readonly state: "offline"; readonly unsaved: number };

export type State = Status["state"];

/** What follows: come back with backoff; get a new token; ask every few seconds; nothing. */
export type Then = "retry" | "renew" | "knock" | "stop";

export interface Verdict {
  readonly then: Then;
  readonly code: string;
  readonly reason: string | null;
  /** Milliseconds that have to pass before the next attempt. */
  readonly afterMs: number;
}

/** Where the code alone says something else, or stands for several things. */
const WORDS: Readonly<Record<string, Then>> = {
  session_suspended: "knock",
  session_pending: "knock",
  session_expired: "renew",
  session_invalidated: "stop",
  // A Hocuspocus socket stays open when a document is refused, so these have no code there.
  forbidden: "stop",
  document_deleted: "stop",
  disconnected: "stop",
  invalid_document_name: "stop",
};

/** Close codes, and statuses of HTTP. */
const CODES: Readonly<Record<number, Then>> = {
  401: "renew",
  403: "stop",
  410: "stop",
  1003: "stop",
  1007: "stop",
  1009: "stop",
  4205: "stop",
  4400: "stop",
  4401: "renew",
  4403: "stop",
  4410: "stop",
  4420: "stop",
  4423: "knock",
  4503: "knock",
};

/** "Come back with backoff" of at least a second. */
const SLOWLY: ReadonlySet<number> = new Set([1013, 4429]);
const SLOWLY_MS = 1000;

/** The meaning of a close code of a socket, or a status of HTTP, with its text: the stable `code`, or `code: reason`. */
export function verdictOf(closeCode: number, text = "", afterMs = 0): Verdict {
  const [word = "", ...rest] = text.split(": ");
  const code = word || String(closeCode);
  const then = WORDS[code] ?? CODES[closeCode] ?? "retry";
  return { then, code, reason: rest.join(": ") || null, afterMs: Math.max(afterMs, SLOWLY.has(closeCode) ? SLOWLY_MS : 0) };
}

/** No answer came, or the other side fell silent. */
export const UNREACHABLE: Verdict = verdictOf(1006, "unreachable");
