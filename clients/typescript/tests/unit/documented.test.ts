import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

import { BEGINNING, next } from "../../src/situation.ts";
import { type Then, verdictOf } from "../../src/verdict.ts";

const THEN: Record<string, Then> = { comes: "retry", stops: "stop", gets: "renew", knocks: "knock" };

const page = readFileSync(new URL("../../../../docs/client.md", import.meta.url), "utf-8");
const rows = [...page.matchAll(/^\| ([\d, ]+) \|(.*?)\| `(\w+)` \| (\w+)/gm)];
const said = rows.flatMap(([, codes = "", reasons = "", state = "", then = ""]) =>
  codes.split(", ").flatMap((code) =>
    [...reasons.matchAll(/`(\w+)`/g), ["", ""]].map(([, reason = ""]) => ({ code: Number(code), reason, state, then })),
  ),
);
/** The code of 4401 alone says nothing: its reasons do. */
const telling = said.filter(({ code, reason }) => code !== 4401 || reason !== "");

test.each(telling)("the page is right about $code $reason", ({ code, reason, state, then }) => {
  const verdict = verdictOf(code, reason);
  const situation = next(next(BEGINNING, { kind: "admitted", access: "write" }), { kind: "ended", verdict });

  expect({ state: situation.status.state, then: verdict.then }).toEqual({ state, then: THEN[then] });
});

test("the page has every row that there is", () => {
  expect(rows.length).toBe(15);
});
