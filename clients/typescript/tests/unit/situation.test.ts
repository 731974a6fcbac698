import { describe, expect, test } from "vitest";

import { BEGINNING, type Happening, next, pause, type Situation } from "../../src/situation.ts";
import { UNREACHABLE, verdictOf } from "../../src/verdict.ts";

const after = (...happenings: Happening[]): Situation => happenings.reduce(next, BEGINNING);
const ended = (code: number, reason = ""): Happening => ({ kind: "ended", verdict: verdictOf(code, reason) });
const admitted: Happening = { kind: "admitted", access: "write" };

describe("how it ends", () => {
  test.each([
    [1006, "", { state: "connecting" }],
    [1012, "draining", { state: "connecting" }],
    [1013, "overloaded", { state: "connecting" }],
    [4408, "no_heartbeat", { state: "connecting" }],
    [4429, "limits_ignored", { state: "connecting" }],
    [4401, "session_expired", { state: "connecting" }],
    [4401, "token_rotated", { state: "connecting" }],
    [4401, "session_invalidated: spam", { state: "removed", code: "session_invalidated", reason: "spam" }],
    [4401, "session_invalidated: a: b", { state: "removed", code: "session_invalidated", reason: "a: b" }],
    [4403, "forbidden", { state: "removed", code: "forbidden", reason: null }],
    [4400, "forged", { state: "removed", code: "forged", reason: null }],
    [4410, "document_deleted", { state: "removed", code: "document_deleted", reason: null }],
    [4205, "lineage_mismatch", { state: "removed", code: "lineage_mismatch", reason: null }],
    [1009, "", { state: "removed", code: "1009", reason: null }],
    [4423, "session_suspended: lunch", { state: "suspended", reason: "lunch" }],
    [4503, "session_pending", { state: "suspended", reason: null }],
    [401, "session_suspended", { state: "suspended", reason: null }],
    [403, "session_pending", { state: "suspended", reason: null }],
    [410, "session_expired", { state: "connecting" }],
    [503, "storage", { state: "connecting" }],
  ])("with %i %s, for one who was in, is %o", (code, reason, status) => {
    expect(after(admitted, ended(code, reason)).status).toEqual(status);
  });

  test("an attempt that fails is offline, with what is only here", () => {
    expect(after({ kind: "unsaved", unsaved: 3 }, ended(1006)).status).toEqual({ state: "offline", unsaved: 3 });
    expect(after(admitted, ended(1006), ended(1006)).status.state).toBe("offline");
  });

  test("silence is offline at once, because nobody knows since when", () => {
    expect(after(admitted, { kind: "ended", verdict: UNREACHABLE }).status.state).toBe("offline");
  });

  test("what is written while it is offline is counted", () => {
    expect(after(ended(1006), { kind: "unsaved", unsaved: 1 }, { kind: "unsaved", unsaved: 2 }).status).toEqual({
      state: "offline",
      unsaved: 2,
    });
  });
});

test("what may be done changes while it is in, and only then", () => {
  const reads: Happening = { kind: "access", access: "read" };

  expect(after(admitted, reads).status.state).toBe("readonly");
  expect(after(admitted, reads, { kind: "access", access: "write" }).status.state).toBe("active");
  expect(after(ended(4423), reads).status.state).toBe("suspended");
});

test("why it is suspended is remembered while it knocks", () => {
  expect(after(admitted, ended(4423, "session_suspended: lunch"), ended(401, "session_suspended")).status).toEqual({
    state: "suspended",
    reason: "lunch",
  });
});

test("without a new token it has expired, and with one it connects", () => {
  expect(after(admitted, { kind: "not-renewed", code: "session_expired" }).status).toEqual({
    state: "expired",
    code: "session_expired",
  });
  expect(after({ kind: "not-renewed", code: "x" }, { kind: "renewing" }).status.state).toBe("connecting");
});

describe("pauses", () => {
  const failed = (failures: number): Situation => ({ ...BEGINNING, failures });

  test.each([0, 1, 2, 5, 100])("after %i failures are drawn from zero to a growing bound", (failures) => {
    const bound = Math.min(15_000, 500 * 2 ** failures);

    expect(pause(failed(failures), verdictOf(1006), 0)).toBe(0);
    expect(pause(failed(failures), verdictOf(1006), 0.5)).toBe(bound / 2);
  });

  test("a server that has too much to do is left alone for a second", () => {
    expect(pause(failed(1), verdictOf(1013, "overloaded"), 0)).toBe(1000);
    expect(pause(failed(1), verdictOf(4429, "limits_ignored"), 0)).toBe(1000);
  });

  test("a server that says when, is asked then", () => {
    expect(pause(failed(1), verdictOf(1012, "draining", 4000), 0)).toBe(4000);
  });

  test("a suspended session asks every one to three seconds", () => {
    expect(pause(failed(9), verdictOf(4423), 0)).toBe(1000);
    expect(pause(failed(9), verdictOf(4423), 1)).toBe(3000);
  });

  test("a new token is tried at once, but not again and again", () => {
    expect(pause(failed(1), verdictOf(4401), 1)).toBe(0);
    expect(pause(failed(2), verdictOf(4401), 0.5)).toBeGreaterThan(0);
  });

  test("what is over is not tried again", () => {
    expect(pause(failed(1), verdictOf(4410), 0)).toBeNull();
  });
});
