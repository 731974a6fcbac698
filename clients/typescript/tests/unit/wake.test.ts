import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";

import { watchSleep } from "../../src/wake.ts";

const { woke, ticked } = { woke: vi.fn(), ticked: vi.fn() };
let stop = (): void => {};

class Page extends EventTarget {
  visibilityState = "visible";

  become(state: "visible" | "hidden"): void {
    this.visibilityState = state;
    this.dispatchEvent(new Event("visibilitychange"));
  }
}

const page = new Page();

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("document", page);
  vi.stubGlobal("window", page);
  woke.mockClear();
  ticked.mockClear();
  stop = watchSleep(woke, ticked);
});

afterEach(() => {
  stop();
  vi.unstubAllGlobals();
  vi.useRealTimers();
});

const sleep = (milliseconds: number): unknown => vi.setSystemTime(Date.now() + milliseconds);

// They share the clock.
describe.sequential("a sleep", () => {
  test("time that passes is no sleep", () => {
    vi.advanceTimersByTime(60_000);

    expect(woke).not.toHaveBeenCalled();
    expect(ticked.mock.calls.length).toBeGreaterThan(50);
  });

  test("a sleep is noticed within a second", () => {
    sleep(3_600_000);
    vi.advanceTimersByTime(1000);

    expect(woke).toHaveBeenCalledTimes(1);
  });

  test("a page that nobody sees has slow timers, and wakes when it is seen", () => {
    page.become("hidden");
    for (let minute = 0; minute < 5; minute += 1) {
      sleep(60_000);
      vi.advanceTimersByTime(1000);
    }
    expect(woke).not.toHaveBeenCalled();

    page.become("visible");

    expect(woke).toHaveBeenCalledTimes(1);
  });

  test("looking away for a moment is no sleep", () => {
    page.become("hidden");
    vi.advanceTimersByTime(2000);
    page.become("visible");

    expect(woke).not.toHaveBeenCalled();
  });

  test.each(["online", "offline", "resume"])("%s is looked into at once", (name) => {
    page.dispatchEvent(new Event(name));

    expect(woke).toHaveBeenCalledTimes(1);
  });
});
