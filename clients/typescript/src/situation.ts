/** The state machine of everything that is connected. Pure: nothing here waits, draws or reads a clock. */

import type { Status, Verdict } from "./verdict.ts";

export type Access = "write" | "read";

export type Happening =
  /** The server lets us in, or changes what we may do. */
  | { readonly kind: "admitted"; readonly access: Access }
  | { readonly kind: "access"; readonly access: Access }
  /** It ended, or never began. */
  | { readonly kind: "ended"; readonly verdict: Verdict }
  /** A new token is asked for; or there was none. */
  | { readonly kind: "renewing" }
  | { readonly kind: "not-renewed"; readonly code: string }
  /** There are so many changes that are only here. */
  | { readonly kind: "unsaved"; readonly unsaved: number };

export interface Situation {
  readonly status: Status;
  /** How many attempts have failed since the last that did not. */
  readonly failures: number;
  readonly unsaved: number;
}

export const BEGINNING: Situation = { status: { state: "connecting" }, failures: 0, unsaved: 0 };

const IS_IN: ReadonlySet<string> = new Set(["active", "readonly"]);

export function isIn({ status }: Situation): boolean {
  return IS_IN.has(status.state);
}

/** The situation after something has happened. */
export function next(situation: Situation, happening: Happening): Situation {
  switch (happening.kind) {
    case "admitted":
      return { ...situation, status: admittedWith(happening.access), failures: 0 };
    case "access":
      return isIn(situation) ? { ...situation, status: admittedWith(happening.access) } : situation;
    case "renewing":
      return { ...situation, status: { state: "connecting" } };
    case "not-renewed":
      return { ...situation, status: { state: "expired", code: happening.code } };
    case "unsaved":
      return { ...situation, unsaved: happening.unsaved, status: withUnsaved(situation.status, happening.unsaved) };
    case "ended":
      return { ...situation, status: endedWith(situation, happening.verdict), failures: situation.failures + 1 };
  }
}

function admittedWith(access: Access): Status {
  return { state: access === "write" ? "active" : "readonly" };
}

function withUnsaved(status: Status, unsaved: number): Status {
  return status.state === "offline" ? { state: "offline", unsaved } : status;
}

function endedWith(situation: Situation, { then, code, reason }: Verdict): Status {
  const { status } = situation;
  switch (then) {
    case "knock":
      // A socket says why it was closed. Who asks later is told only that it is so.
      return { state: "suspended", reason: reason ?? (status.state === "suspended" ? status.reason : null) };
    case "stop":
      return { state: "removed", code, reason };
    case "renew":
      return { state: "connecting" };
    case "retry":
      // A connection that broke is made anew at once. Who cannot is offline.
      return isIn(situation) && code !== "unreachable"
        ? { state: "connecting" }
        : { state: "offline", unsaved: situation.unsaved };
  }
}

const BASE_MS = 500;
const CAP_MS = 15_000;
const KNOCK_MS = 1000;
const KNOCK_SPREAD_MS = 2000;

/**
 * How long to wait before the next attempt; `null` is for ever. `random` is in [0, 1).
 *
 * Full jitter: clients that lost their server together come back apart. Attempts are sparse enough for a server that
 * is starting, and never further apart than a user would wait.
 */
export function pause({ failures }: Situation, { then, afterMs }: Verdict, random: number): number | null {
  const backoff = random * Math.min(CAP_MS, BASE_MS * 2 ** Math.min(failures, 10));
  switch (then) {
    case "stop":
      return null;
    case "knock":
      return KNOCK_MS + random * KNOCK_SPREAD_MS;
    case "renew":
      return failures > 1 ? backoff : 0;
    case "retry":
      return afterMs + backoff;
  }
}
