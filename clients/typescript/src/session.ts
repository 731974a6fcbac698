/** A session of Roomkey: its token and who renews it, and what becomes of it. */

import { Cell, isAlike, Signal, type Watchable } from "./cell.ts";
import { Peers } from "./peers.ts";
import { BEGINNING, next, type Happening, type Situation } from "./situation.ts";
import { type Status, UNREACHABLE, type Verdict, verdictOf } from "./verdict.ts";
import { unref, watchSleep } from "./wake.ts";

export interface SessionOptions {
  /** Where Roomkey is mounted, such as `https://rooms.example.com/`. */
  url: string | URL;
  /** The token that your backend got for its user. Without one the session is that of the cookie. */
  token?: string | undefined;
  /**
   * Gets a new token from your backend: because the session expires or has expired, or the token was replaced. `null`
   * means that there is none, and the user has to log in; a page with a cookie says `""` when there is a new one. If it
   * throws, it is asked again later.
   */
  renew?: ((code: string) => Promise<string | null>) | undefined;
  /** Replaces the token this often. */
  rotateEveryMs?: number | undefined;
  /** Whether windows of this origin tell one another the newest token of the session; on by default. */
  share?: boolean | undefined;
  /** Headers of a request, in place of `Authorization: Bearer`, as a proof of possession needs them. */
  headers?: ((method: string, url: string, token: string) => Promise<Record<string, string>>) | undefined;
  fetch?: typeof globalThis.fetch | undefined;
  /** A class like a browser's `WebSocket`, which Node.js has since 22. */
  WebSocket?: typeof globalThis.WebSocket | undefined;
}

/** `access` to `documents`, or what a `group` has. */
export interface Grant {
  readonly documents?: string;
  readonly access?: string;
  readonly group?: string;
}

/** What the server says of the session. */
export interface Facts {
  readonly id: string;
  readonly userId: string;
  readonly expiresAt: Date;
  readonly idleExpiresAt: Date | null;
  readonly grants: readonly Grant[];
}

/** A request or a handshake that did not succeed. */
export class Refused extends Error {
  override readonly name = "Refused";
  /** The status of the answer; 0 if there was none. */
  readonly status: number;

  constructor(
    readonly verdict: Verdict,
    message: string = verdict.code,
    status = 0,
  ) {
    super(message);
    this.status = status;
  }
}

const PATIENCE_MS = 10_000;
/**
 * After a sleep the connections that the browser or Node.js keeps are dead, and nobody tells: what is not answered soon
 * is asked again on another one, so that the user is told within 5 seconds.
 */
const WAKING_MS = 10_000;
const WAKING_PATIENCE_MS = 1000;
const WAKING_TRIES = 3;
const RENEWAL_PATIENCE_MS = 30_000;
/** So long before its end a session is renewed, or in the last quarter of its life. */
const RENEW_BEFORE_MS = 60_000;
/** Within this time an old token still gets its successor, if the answer was lost. */
const ROTATION_GRACE_MS = 25_000;

export interface RequestOptions {
  json?: unknown;
  accept?: string;
}

export class Session {
  readonly #options: SessionOptions;
  readonly #base: URL;
  readonly #status: Cell<Status> = new Cell<Status>(BEGINNING.status, isAlike);
  readonly #facts: Cell<Facts | null> = new Cell<Facts | null>(null);
  readonly #peers: Peers;
  readonly #stopWatching: () => void;
  #situation: Situation = BEGINNING;
  #token: string | null;
  /** Counts tokens, so that who was refused with an older one tries again. */
  #generation = 0;
  #renewing: Promise<boolean> | null = null;
  #rotating: Promise<void> | null = null;
  /** When the token is renewed before it has to be; for the same end of the session only once. */
  #renewAt = Infinity;
  #renewal: Promise<void> | undefined;
  #rotateAt = Infinity;
  #wokeAt = -Infinity;
  #isClosed = false;

  /** For rooms and documents: a new token, a judgement about the session, the end of a sleep, the passing of time. */
  readonly renewed: Signal<string> = new Signal();
  readonly judged: Signal<Verdict> = new Signal();
  readonly woke: Signal<void> = new Signal();
  readonly ticked: Signal<void> = new Signal();
  /** It ends soon unless the user does something: `at` and why, `idle` or `lifetime`. */
  readonly expiring: Signal<{ at: Date; reason: string }> = new Signal();

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#base = new URL(options.url);
    this.#base.pathname = this.#base.pathname.replace(/\/*$/, "/");
    this.#token = options.token ?? null;
    this.#peers = new Peers(options.share === false ? null : this.#base.href, {
      token: () => this.#token,
      told: (token) => this.#take(token),
    });
    this.#peers.join(this.id);
    this.#scheduleRotation();
    this.#stopWatching = watchSleep(
      () => this.#wake(),
      () => this.#tick(),
    );
  }

  get status(): Watchable<Status> {
    return this.#status;
  }

  /** What the server said last; `null` before it has been asked. */
  get facts(): Watchable<Facts | null> {
    return this.#facts;
  }

  /** Which is public, unlike the token. */
  get id(): string | null {
    return this.#token?.split(".")[0] ?? this.#facts.value?.id ?? null;
  }

  get token(): string | null {
    return this.#token;
  }

  /** Go on with this token: rooms that are open use it, and those that wait for one come back. */
  use(token: string): void {
    // Those who have the same session hear it where they listen now.
    this.#peers.tell(token);
    this.#take(token);
  }

  /** Replace the token. Every window that does so at the same time gets the same one. */
  rotate(): Promise<void> {
    this.#rotating ??= this.#rotate().finally(() => {
      this.#rotating = null;
      this.#scheduleRotation();
    });
    return this.#rotating;
  }

  /** Ask the server how the session is. It never fails: what is wrong is in `status`. */
  async check(): Promise<void> {
    try {
      await this.#look();
    } catch (error) {
      const { verdict } = asRefused(error);
      this.judge(verdict);
      if (!this.#isClosed) {
        this.judged.emit(verdict);
      }
    }
  }

  /** Close everything that is open. The session itself goes on; `request("DELETE", "sessions/me")` logs its user out. */
  close(): void {
    this.#isClosed = true;
    this.#stopWatching();
    this.#peers.leave();
    this.judged.emit({ ...UNREACHABLE, then: "stop", code: "closed" });
  }

  /**
   * Make a request below the address of Roomkey as this session, with a new token if the old one is not good any more.
   *
   * Throws `Refused` if the answer is not a good one, or if there is none.
   */
  async request(method: string, path: string, options: RequestOptions = {}): Promise<Response> {
    for (let attempt = 0; ; attempt += 1) {
      const generation = this.#generation;
      const answer = await this.#send(method, path, options);
      if (answer.ok) {
        return answer;
      }
      const refused = await refusedWith(answer);
      if (refused.verdict.then !== "renew" || !(await this.#renew(generation, refused.verdict.code, attempt))) {
        throw refused;
      }
    }
  }

  // --- for rooms and documents ----------------------------------------------------------------------------------

  /** A ticket for one socket; `null` if the browser brings a cookie along. Throws `Refused`. */
  async ticket(): Promise<string | null> {
    try {
      if (this.#token === null) {
        await this.#look();
        return null;
      }
      const answer = await this.request("POST", "sessions/me/tickets");
      const { ticket } = (await answer.json()) as { ticket: string };
      this.#happen({ kind: "admitted", access: "write" });
      if (this.#facts.value === null) {
        void this.check();
      }
      return ticket;
    } catch (error) {
      const refused = asRefused(error);
      this.judge(refused.verdict);
      throw refused;
    }
  }

  /** The address of a socket. */
  socketUrl(path: string, query: Record<string, string> = {}): string {
    const url = new URL(path, this.#base);
    url.protocol = url.protocol === "http:" ? "ws:" : "wss:";
    url.search = new URLSearchParams(query).toString();
    return url.href;
  }

  get Socket(): typeof globalThis.WebSocket {
    const found = this.#options.WebSocket ?? globalThis.WebSocket;
    if (found === undefined) {
      throw new TypeError("there is no WebSocket: give the session one");
    }
    return found;
  }

  /** A socket was closed, or a request refused, for this reason. */
  judge(verdict: Verdict): void {
    if (verdict.then === "renew") {
      this.#happen({ kind: "not-renewed", code: verdict.code });
    } else if (verdict.then !== "stop" || verdict.code.startsWith("session_")) {
      this.#happen({ kind: "ended", verdict });
    }
  }

  /** Get a new token because the session ends soon, unless that was done; what is found is in `token`. */
  async renewAhead(): Promise<void> {
    if (this.#renewAt !== Infinity) {
      this.#renewAt = Infinity;
      this.#renewal = this.#renew(this.#generation, "session_expiring", 1).then(
        () => this.check(),
        () => {}, // it is asked again when the session is over
      );
    }
    await this.#renewal;
  }

  async #look(): Promise<void> {
    const answer = await this.request("GET", "sessions/me");
    const facts = factsOf((await answer.json()) as SessionBody);
    const end = facts.expiresAt.getTime();
    if (end !== this.#facts.value?.expiresAt.getTime()) {
      this.#renewAt = end - Math.min(RENEW_BEFORE_MS, (end - Date.now()) / 4);
    }
    this.#facts.set(facts);
    this.#happen({ kind: "admitted", access: "write" });
  }

  // --- tokens ---------------------------------------------------------------------------------------------------

  #take(token: string): void {
    if (token === this.#token || this.#isClosed) {
      return;
    }
    this.#token = token;
    this.#generation += 1;
    this.#peers.join(this.id);
    this.#scheduleRotation();
    if (["expired", "removed"].includes(this.#status.value.state)) {
      this.#happen({ kind: "renewing" });
    }
    this.renewed.emit(token);
  }

  /** Whether there is another token than that of `generation`. Other windows are asked first, then the application. */
  async #renew(generation: number, code: string, attempt: number): Promise<boolean> {
    if (generation !== this.#generation) {
      return attempt < MAX_RENEWALS;
    }
    if (attempt >= MAX_RENEWALS || this.#isClosed) {
      return false;
    }
    this.#renewing ??= this.#askForToken(code, attempt).finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  async #askForToken(code: string, attempt: number): Promise<boolean> {
    const asksPeers = attempt === 0 && code === "token_rotated";
    const known = asksPeers ? await this.#peers.ask() : null;
    if (known !== null) {
      this.#take(known);
      return true;
    }
    const { renew } = this.#options;
    if (renew === undefined) {
      return false;
    }
    const before = this.#token;
    let token: string | null;
    try {
      token = await within(RENEWAL_PATIENCE_MS, renew(code));
    } catch {
      throw new Refused(UNREACHABLE, "there is no new token now");
    }
    if (token === null || token === before) {
      return false;
    }
    if (before === null) {
      this.#generation += 1; // the cookie is another one
    } else {
      this.use(token);
    }
    return true;
  }

  async #rotate(): Promise<void> {
    const giveUpAt = Date.now() + ROTATION_GRACE_MS;
    for (;;) {
      const { id } = this;
      const generation = this.#generation;
      if (id === null) {
        throw new TypeError("a session in a cookie is not rotated by its page");
      }
      try {
        const answer = await this.request("PUT", `sessions/${id}/rotate`);
        const { token } = (await answer.json()) as { token: string };
        return this.use(token);
      } catch (error) {
        if (generation !== this.#generation) {
          return; // somebody else has replaced it
        }
        const { verdict } = asRefused(error);
        if (verdict.then !== "retry" || Date.now() > giveUpAt) {
          throw error;
        }
        await new Promise((resolve) => setTimeout(resolve, verdict.afterMs + 500 + Math.random() * 1000));
      }
    }
  }

  #scheduleRotation(): void {
    this.#rotateAt = Date.now() + (this.#options.rotateEveryMs ?? Infinity);
  }

  // --- time -----------------------------------------------------------------------------------------------------

  #wake(): void {
    this.#wokeAt = Date.now();
    this.woke.emit();
    void this.check().then(() => this.#tick());
  }

  #tick(): void {
    this.ticked.emit();
    const now = Date.now();
    if (now >= this.#rotateAt && this.#rotating === null && this.#status.value.state === "active") {
      this.rotate().catch(() => {}); // what is wrong with it is found out by the next request
    }
    if (now >= this.#renewAt && this.#status.value.state === "active") {
      void this.renewAhead();
    }
  }

  #happen(happening: Happening): void {
    this.#situation = next(this.#situation, happening);
    this.#status.set(this.#situation.status);
  }

  // --- requests -------------------------------------------------------------------------------------------------

  async #send(method: string, path: string, { json, accept }: RequestOptions): Promise<Response> {
    const url = new URL(path, this.#base).href;
    const token = this.#token;
    const headers: Record<string, string> = { accept: accept ?? "application/json" };
    if (json !== undefined) {
      headers["content-type"] = "application/json";
    }
    // What an application asks for may not be done twice.
    const isHurried = Date.now() - this.#wokeAt < WAKING_MS && json === undefined;
    for (let tries = isHurried ? WAKING_TRIES : 1; ; tries -= 1) {
      if (token !== null) {
        Object.assign(headers, (await this.#options.headers?.(method, url, token)) ?? { authorization: `Bearer ${token}` });
      }
      const controller = new AbortController();
      const timer = unref(setTimeout(() => controller.abort(), isHurried ? WAKING_PATIENCE_MS : PATIENCE_MS));
      try {
        return await (this.#options.fetch ?? globalThis.fetch)(url, {
          method,
          headers,
          body: json === undefined ? null : JSON.stringify(json),
          credentials: token === null ? "include" : "omit",
          cache: "no-store",
          signal: controller.signal,
        });
      } catch {
        if (tries === 1) {
          throw new Refused(UNREACHABLE, "The server cannot be reached.");
        }
      } finally {
        clearTimeout(timer);
      }
    }
  }
}

/** Other windows, then the application; who is refused then has no good token. */
const MAX_RENEWALS = 2;

interface SessionBody {
  id: string;
  user_id: string;
  expires_at: string;
  idle_expires_at: string | null;
  grants: Grant[];
}

function factsOf({ id, user_id, expires_at, idle_expires_at, grants }: SessionBody): Facts {
  const idleExpiresAt = idle_expires_at === null ? null : new Date(idle_expires_at);
  return { id, userId: user_id, expiresAt: new Date(expires_at), idleExpiresAt, grants };
}

/** What an RFC 9457 problem says. */
async function refusedWith(answer: Response): Promise<Refused> {
  const problem = (await answer.json().catch(() => ({}))) as Record<string, unknown>;
  const text = (value: unknown): string | null => (typeof value === "string" ? value : null);
  const afterMs = Number(answer.headers.get("retry-after") ?? 0) * 1000 || 0;
  const verdict = verdictOf(answer.status, text(problem["code"]) ?? "", afterMs);
  return new Refused(verdict, text(problem["detail"]) ?? text(problem["title"]) ?? answer.statusText, answer.status);
}

function asRefused(error: unknown): Refused {
  if (error instanceof Refused) {
    return error;
  }
  // What came is not what the server says, such as the page of a proxy.
  return new Refused(UNREACHABLE, String(error));
}

async function within<T>(milliseconds: number, work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const over = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("late")), milliseconds);
  });
  return Promise.race([work, over]).finally(() => clearTimeout(timer));
}
