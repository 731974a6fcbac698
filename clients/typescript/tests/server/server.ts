/** The server that these tests are given: who calls it, and what stands between it and a client. */

import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import { afterAll, expect } from "vitest";
import WebSocket from "ws";

import type { Watchable } from "../../src/index.ts";
import { Session, type SessionOptions } from "../../src/index.ts";

export const url = process.env["ROOMKEY_URL"] ?? "http://127.0.0.1:3000";
const PATIENCE_MS = 10_000;

export interface Issued {
  session: { id: string; user_id: string };
  token: string;
}

export async function command<T>(method: string, path: string, json?: unknown): Promise<T> {
  const answer = await fetch(new URL(path, url), {
    method,
    headers: json === undefined ? {} : { "content-type": "application/json" },
    body: json === undefined ? null : JSON.stringify(json),
  });
  expect(answer.ok, `${method} ${path}: ${answer.status}`).toBe(true);
  return answer.status === 204 ? (undefined as T) : ((await answer.json()) as T);
}

let users = 0;

/** A session of somebody new, because nobody may have more than ten. */
export const issue = (name: string, more: object = {}): Promise<Issued> =>
  command("POST", "sessions", { user_id: `${name} ${process.pid}.${(users += 1)}`, activate: true, ...more });

/** The token of another session of the same user. */
export const anotherToken = async ({ session }: Issued): Promise<string> =>
  (await command<Issued>("POST", "sessions", { user_id: session.user_id, activate: true })).token;

/** What an operator does with a session. */
export const order = (name: string, { session }: Issued, json: object = {}): Promise<Issued> =>
  command("PUT", `sessions/${session.id}/${name}`, json);

const cleanUp: (() => void)[] = [];
// Not after each test, because they run side by side.
afterAll(() => {
  for (const clean of cleanUp.splice(0).reverse()) {
    clean();
  }
});

/** Have something closed when the tests of a file are over. */
export function closing<T extends { close(): unknown }>(what: T): T {
  cleanUp.push(() => void what.close());
  return what;
}

/** A page's socket: with an `Origin`. */
class PageSocket extends WebSocket {
  constructor(address: string | URL, protocols?: string | string[]) {
    super(address, protocols ?? [], { origin: url });
  }
}

export function session(issued: Issued, options: Partial<SessionOptions> = {}): Session {
  return closing(
    new Session({ url, token: issued.token, WebSocket: PageSocket as unknown as typeof globalThis.WebSocket, ...options }),
  );
}

export const NodeSocket = WebSocket as unknown as typeof globalThis.WebSocket;

/** The first value that is as it should be. */
export function until<T>(cell: Watchable<T>, isRight: (value: T) => boolean): Promise<T> {
  return new Promise((resolve, reject) => {
    const stop = (): void => void Promise.resolve().then(() => unsubscribe());
    const timer = setTimeout(() => {
      stop();
      reject(new Error(`it stayed ${JSON.stringify(cell.value)}`));
    }, PATIENCE_MS);
    const unsubscribe = cell.subscribe((value) => {
      if (isRight(value)) {
        clearTimeout(timer);
        stop();
        resolve(value);
      }
    });
  });
}

export const untilState = <T extends { state: string }>(cell: Watchable<T>, ...states: string[]): Promise<T> =>
  until(cell, ({ state }) => states.includes(state));

interface Line {
  url: string;
  /** Nothing that the server says comes through, on the connections that there are. */
  deafen: () => void;
  cut: () => void;
  mend: () => void;
  close: () => void;
}

/** A line to the server that can be cut and mended. */
export async function line(): Promise<Line> {
  const ends = new Set<Socket>();
  const answers = new Set<Socket>();
  let isCut = false;
  const proxy = createServer((near) => {
    if (isCut) {
      near.destroy();
      return;
    }
    const far = connect(Number(new URL(url).port), new URL(url).hostname);
    answers.add(far);
    far.on("close", () => answers.delete(far));
    for (const [end, other] of [[near, far], [far, near]] as const) {
      ends.add(end);
      end.on("error", () => {});
      end.on("close", () => {
        ends.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as { port: number };
  const drop = (): void => ends.forEach((end) => end.destroy());
  return closing({
    url: `http://127.0.0.1:${port}`,
    deafen: () => answers.forEach((far) => far.unpipe()),
    cut() {
      isCut = true;
      drop();
    },
    mend: () => (isCut = false),
    close() {
      drop();
      proxy.close();
    },
  });
}

let documents = 0;
/** A document of which no other test knows. */
export const newDocument = (): string => `notes/${process.pid}/${(documents += 1)}`;
