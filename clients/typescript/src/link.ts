/** Keeps one transport connected for as long as that is of use: tickets, attempts, pauses, sleep and silence. */

import { Cell, isAlike, type Watchable } from "./cell.ts";
import { Refused, type Session } from "./session.ts";
import { type Access, BEGINNING, type Happening, next, pause, type Situation } from "./situation.ts";
import { type Status, UNREACHABLE, type Verdict, verdictOf } from "./verdict.ts";
import { unref } from "./wake.ts";

/** A kind of socket. It says what happens to it by the methods of its `Link`. */
export interface Transport {
  /** Begin to connect, with this ticket if there is one. */
  open(ticket: string | null): void;
  /** Close, and say nothing more of this socket. */
  close(): void;
  /** Make the server say something. */
  probe(): void;
  /** The session has a new token, and the socket is open. */
  renew?(token: string): void;
}

/** Time for a socket to open and be let in. */
const OPENING_MS = 10_000;
/** The server says something at least every 25 seconds, or is asked to. */
const SILENCE_MS = 25_000;
/** Time for an answer, after which there is none: the user is told within 5 seconds, a new attempt included. */
const ANSWER_MS = 2000;

export class Link {
  readonly #session: Session;
  readonly #transport: Transport;
  readonly #status: Cell<Status> = new Cell<Status>(BEGINNING.status, isAlike);
  readonly #forget: (() => void)[];
  #situation: Situation = BEGINNING;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** Whether a ticket is asked for or a socket is opening; or open; or whether there is none. */
  #phase: "waiting" | "opening" | "open" | "closed" = "closed";
  /** Counts attempts, so that what comes late from an earlier one is ignored. */
  #attempt = 0;
  #heardAt = 0;
  #probedAt: number | null = null;

  constructor(session: Session, transport: Transport) {
    this.#session = session;
    this.#transport = transport;
    this.#forget = [
      session.renewed.on((token) => this.#onRenewed(token)),
      session.judged.on((verdict) => this.#onJudged(verdict)),
      session.woke.on(() => this.#onWoke()),
      session.ticked.on(() => this.#onTick()),
    ];
  }

  get status(): Watchable<Status> {
    return this.#status;
  }

  /** Connect, and connect again whenever that may help. */
  start(): void {
    if (this.#phase === "closed") {
      void this.#try();
    }
  }

  /** Disconnect for good. */
  stop(): void {
    for (const forget of this.#forget) {
      forget();
    }
    this.#disconnect("closed");
  }

  // --- what the transport says ----------------------------------------------------------------------------------

  admitted(access: Access): void {
    clearTimeout(this.#timer);
    this.#phase = "open";
    this.heard();
    this.#happen({ kind: "admitted", access });
  }

  access(access: Access): void {
    this.#happen({ kind: "access", access });
  }

  heard(): void {
    this.#heardAt = Date.now();
    this.#probedAt = null;
  }

  unsaved(unsaved: number): void {
    this.#happen({ kind: "unsaved", unsaved });
  }

  /** The socket was closed, or refused. */
  closed(code: number, text: string, afterMs = 0): void {
    this.end(verdictOf(code, text, afterMs));
  }

  end(verdict: Verdict): void {
    if (this.#phase !== "closed") {
      if (verdict.then === "knock" || verdict.code === "session_invalidated") {
        this.#session.judge(verdict);
      }
      this.#ended(verdict);
    }
  }

  // --- attempts -------------------------------------------------------------------------------------------------

  async #try(): Promise<void> {
    this.#disconnect("opening");
    const attempt = this.#attempt;
    this.heard();
    try {
      const ticket = await this.#session.ticket();
      if (attempt === this.#attempt) {
        this.#timer = unref(setTimeout(() => this.#ended(UNREACHABLE), OPENING_MS));
        this.#transport.open(ticket);
      }
    } catch (error) {
      if (attempt === this.#attempt) {
        this.#refused(error);
      }
    }
  }

  #refused(error: unknown): void {
    if (!(error instanceof Refused)) {
      this.#disconnect("closed");
      throw error;
    }
    const { verdict } = error;
    if (verdict.then === "renew") {
      this.#disconnect("waiting"); // for `session.use`
      this.#happen({ kind: "not-renewed", code: verdict.code });
    } else {
      this.#ended(verdict);
    }
  }

  #ended(verdict: Verdict): void {
    this.#disconnect("waiting");
    this.#happen({ kind: "ended", verdict });
    const wait = pause(this.#situation, verdict, Math.random());
    if (wait !== null) {
      // Not unref'ed: a program that waits to come back is not done.
      this.#timer = setTimeout(() => void this.#try(), wait);
    }
  }

  #disconnect(phase: "waiting" | "opening" | "closed"): void {
    this.#attempt += 1;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#phase = phase;
    this.#transport.close();
  }

  // --- what the session says ------------------------------------------------------------------------------------

  #onRenewed(token: string): void {
    const { status } = this.#situation;
    if (this.#phase === "open") {
      this.#transport.renew?.(token);
    } else if (this.#phase === "waiting" && (status.state === "expired" || (status.state === "removed" && status.code === "session_invalidated"))) {
      this.#happen({ kind: "renewing" });
      void this.#try();
    }
  }

  /** The server was asked about the session after a sleep. */
  #onJudged(verdict: Verdict): void {
    if (this.#phase === "closed" || this.#isOver) {
      return;
    }
    if (verdict.then === "renew") {
      this.#refused(new Refused(verdict));
    } else if (verdict.then !== "retry") {
      this.#ended(verdict);
    } else if (this.#phase === "open") {
      this.#look(); // it may be that only REST is out of reach
    } else {
      this.#happen({ kind: "ended", verdict });
    }
  }

  /** Whether nothing but a new token, or nothing at all, brings it back. */
  get #isOver(): boolean {
    return this.#phase === "waiting" && this.#timer === undefined;
  }

  #onWoke(): void {
    if (this.#phase === "open") {
      this.#probe();
      setTimeout(() => this.#look(), ANSWER_MS);
    } else if (this.#phase !== "closed" && !this.#isOver) {
      void this.#try();
    }
  }

  #onTick(): void {
    if (this.#phase === "open" && this.#probedAt === null && Date.now() - this.#heardAt > SILENCE_MS) {
      this.#probe();
    } else {
      this.#look();
    }
  }

  #probe(): void {
    this.#probedAt = Date.now();
    this.#transport.probe();
  }

  /** Give up a socket on which an answer is overdue. */
  #look(): void {
    if (this.#phase === "open" && this.#probedAt !== null && Date.now() - this.#probedAt >= ANSWER_MS) {
      this.#ended(UNREACHABLE);
      void this.#try();
    }
  }

  #happen(happening: Happening): void {
    this.#situation = next(this.#situation, happening);
    this.#status.set(this.#situation.status);
  }
}
