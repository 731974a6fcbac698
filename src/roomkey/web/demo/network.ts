/** Whether this window reaches the server: the browser says when the network goes, which may not be ours. */

import { Refusal, request } from "./rest";

const PATIENCE_MS = 2000;

export class Network {
  /** The browser has no network, and the server cannot be reached. A server on this machine is reached without one. */
  away = false;

  constructor(private readonly changed: () => void) {
    for (const event of ["offline", "online"]) {
      addEventListener(event, () => void this.look());
    }
  }

  async look(): Promise<void> {
    const away = !navigator.onLine && !(await isReachable());
    if (away !== this.away) {
      this.away = away;
      this.changed();
    }
  }
}

async function isReachable(): Promise<boolean> {
  try {
    await request("GET", "health/live", { signal: AbortSignal.timeout(PATIENCE_MS) });
    return true;
  } catch (error) {
    return error instanceof Refusal && error.status !== 0;
  }
}
