import { expect, test } from "vitest";

import { Ledger } from "../../src/ledger.ts";

const connected = (ledger: Ledger): Ledger => {
  ledger.opened();
  ledger.sent(true);
  ledger.durable(1);
  return ledger;
};

const writes = (ledger: Ledger): void => {
  ledger.wrote();
  ledger.sent(false);
};

test("a change is unsaved until the server has said that it is durable", () => {
  const ledger = connected(new Ledger());

  writes(ledger);
  writes(ledger);
  expect(ledger.unsaved).toBe(2);
  ledger.durable(2);
  expect(ledger.unsaved).toBe(1);
  ledger.durable(3);
  expect(ledger.unsaved).toBe(0);
});

test("a change that was sent before everything else says nothing of what was written earlier", () => {
  const ledger = new Ledger();
  ledger.wrote(); // without a connection
  ledger.opened();

  writes(ledger);
  ledger.durable(1);

  expect(ledger.unsaved).toBe(2);
  ledger.sent(true);
  ledger.durable(2);
  expect(ledger.unsaved).toBe(0);
});

test("what was under way when the connection broke is unsaved until it was brought again", () => {
  const ledger = connected(new Ledger());
  writes(ledger);

  ledger.opened();
  ledger.durable(1); // of nothing that was sent
  expect(ledger.unsaved).toBe(1);
  ledger.sent(true);
  ledger.durable(2);

  expect(ledger.unsaved).toBe(0);
});

test("a number that was said before takes nothing back", () => {
  const ledger = connected(new Ledger());
  writes(ledger);
  ledger.durable(2);

  ledger.durable(1);
  writes(ledger);

  expect(ledger.unsaved).toBe(1);
});

test("frames that are told one by one are durable in their order", () => {
  const ledger = connected(new Ledger());
  writes(ledger);
  writes(ledger);

  ledger.nextDurable();

  expect(ledger.unsaved).toBe(1);
});

test("a sequence of chance never says less than is true", () => {
  // The truth: every change that was in a durable frame, or in a step 2 that was.
  let seed = 7;
  const draw = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below;
  for (let history = 0; history < 500; history += 1) {
    const ledger = new Ledger();
    let frames: number[][] = [];
    let durable = 0;
    let written = 0;
    const safe = new Set<number>();
    let isConnected = false;
    for (let step = 0; step < 40; step += 1) {
      switch (draw(5)) {
        case 0:
          ledger.wrote();
          written += 1;
          if (isConnected) {
            ledger.sent(false);
            frames.push([written]);
          }
          break;
        case 1:
          if (isConnected) {
            ledger.sent(true);
            frames.push(Array.from({ length: written }, (_, index) => index + 1));
          }
          break;
        case 2:
          if (isConnected && durable < frames.length) {
            durable += 1 + draw(frames.length - durable);
            frames.slice(0, durable).flat().forEach((change) => safe.add(change));
            ledger.durable(durable);
          }
          break;
        case 3:
          ledger.opened();
          [frames, durable, isConnected] = [[], 0, true];
          break;
        default:
          isConnected = false;
      }
      expect(ledger.unsaved).toBeGreaterThanOrEqual(written - safe.size);
    }
  }
});
