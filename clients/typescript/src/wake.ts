/** Notices that the machine slept, the page was frozen, or the network came back. */

const TICK_MS = 1000;
const SLEPT_MS = 5000;

/** Timers must not keep a program of Node.js alive. */
export function unref(timer: ReturnType<typeof setTimeout>): typeof timer {
  (timer as { unref?: () => void }).unref?.();
  return timer;
}

/**
 * Calls `woke` after each sleep, and `ticked` about every second in between.
 *
 * A tick that is late is a sleep, but not in a page that nobody sees: browsers slow down its timers. There it counts
 * when it is seen again.
 */
export function watchSleep(woke: () => void, ticked: () => void): () => void {
  const page = globalThis.document as Document | undefined;
  let ticksAt = Date.now();
  const look = (): void => {
    const late = Date.now() - ticksAt;
    if (page?.visibilityState === "hidden") {
      ticked();
      return;
    }
    ticksAt = Date.now();
    if (late > SLEPT_MS) {
      woke();
    } else {
      ticked();
    }
  };
  const timer = unref(setInterval(look, TICK_MS));
  const events: [EventTarget | undefined, string, () => void][] = [
    [page, "visibilitychange", look],
    [page, "resume", woke],
    [page && globalThis.window, "online", woke],
    [page && globalThis.window, "offline", woke],
    [page && globalThis.window, "pageshow", look],
  ];
  for (const [target, name, listener] of events) {
    target?.addEventListener(name, listener);
  }
  return () => {
    clearInterval(timer);
    for (const [target, name, listener] of events) {
      target?.removeEventListener(name, listener);
    }
  };
}
