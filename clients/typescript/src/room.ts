/** One document on `/ws`: what others say in it, who is there, and what of ours has been taken. */

import { Cell, isAlike, Signal, type Watchable } from "./cell.ts";
import { type Failure, newId, type Position, type Relayed, type RelayedEdit, type RelayedStatus, type Subscribed } from "./messages.ts";
import type { Session } from "./session.ts";
import type { Status } from "./verdict.ts";

/** Whether everything is where it survives; if not, `unsaved` changes are only here or under way. */
export interface Saved {
  readonly state: "saving" | "saved";
  readonly unsaved: number;
}

export function savedWith(unsaved: number): Saved {
  return { state: unsaved === 0 ? "saved" : "saving", unsaved };
}

/** How a room says something. What is said without a connection is lost. */
export interface RoomSocket {
  send(messageType: string, payload: object): void;
  sendText(text: string): void;
}

export interface RoomMessage {
  readonly type: string;
  readonly payload: RelayedEdit;
}

/** A message that was not taken, and why. */
export class NotPublished extends Error {
  override readonly name = "NotPublished";

  constructor(
    readonly code: string,
    message: string,
  ) {
    super(message);
  }
}

interface Pending {
  readonly text: string;
  readonly resolve: (position: Position | null) => void;
  readonly reject: (error: NotPublished) => void;
}

/** Messages that wait for their acknowledgement; a program that goes on regardless would fill the memory. */
const MAX_PENDING = 1000;

interface Owner {
  left: () => void;
  unsaved: () => void;
}

export class Room {
  readonly #session: Session;
  readonly #socket: RoomSocket;
  readonly #owner: Owner;
  readonly #status: Cell<Status> = new Cell<Status>({ state: "connecting" }, isAlike);
  readonly #saved: Cell<Saved> = new Cell<Saved>(savedWith(0), isAlike);
  readonly #presence: Cell<readonly RelayedStatus[]> = new Cell<readonly RelayedStatus[]>([]);
  readonly #pending: Map<string, Pending> = new Map();
  #link: Status = { state: "connecting" };
  #position: Position | null = null;
  #subscription: string | null = null;
  #isIn = false;
  #access = "";
  #refused: Status | null = null;
  #shown: object | null = null;
  #held = 0;
  #resending: ReturnType<typeof setTimeout> | undefined;

  /** What others published, in order, nothing twice; after a pause also what was missed. */
  readonly messages: Signal<RoomMessage> = new Signal();
  /** Where others point: only the newest of each session comes. */
  readonly cursors: Signal<Relayed> = new Signal();
  /** Messages were lost: load the document, and go on with what comes. */
  readonly reload: Signal<Position> = new Signal();

  constructor(
    readonly document: string,
    session: Session,
    socket: RoomSocket,
    owner: Owner,
  ) {
    this.#session = session;
    this.#socket = socket;
    this.#owner = owner;
  }

  get status(): Watchable<Status> {
    return this.#status;
  }

  get saved(): Watchable<Saved> {
    return this.#saved;
  }

  /** The others in the document, newly read after each pause: who left meanwhile is not in it. */
  get presence(): Watchable<readonly RelayedStatus[]> {
    return this.#presence;
  }

  /** Up to where everything has been heard. */
  get position(): Position | null {
    return this.#position;
  }

  /**
   * Tell everyone else, now or when the connection is back. It is done once, however often it has to be sent.
   *
   * Throws `NotPublished` if the server does not take it, or if too many messages wait.
   */
  publish(payload: Readonly<Record<string, unknown>>, type = "realtime_edit"): Promise<Position | null> {
    if (this.#pending.size >= MAX_PENDING) {
      return Promise.reject(new NotPublished("TOO_MANY", "too many messages wait"));
    }
    const id = newId();
    // As text, because what is repeated must be the same to the letter.
    // An edit says its id in what is relayed, too: if its acknowledgement is lost, it comes back as something missed.
    const own = type === "realtime_edit" ? { message_id: id } : {};
    const text = JSON.stringify({ id, message_type: type, payload: { ...payload, ...own, document: this.document } });
    return new Promise((resolve, reject) => {
      this.#pending.set(id, { text, resolve, reject });
      this.#counted();
      if (this.#isIn && this.#resending === undefined) {
        this.#socket.sendText(text);
      }
    });
  }

  /** Tell the others where the user points. It is not kept. */
  point(payload: Readonly<Record<string, unknown>>): void {
    if (this.#isIn) {
      this.#socket.send("cursor_position", { ...payload, document: this.document });
    }
  }

  /** Show the others what the user does, until something else is shown; `offline` is nothing. */
  show(status: string, more: Readonly<Record<string, unknown>> = {}): void {
    this.#shown = status === "offline" ? null : { ...more, document: this.document, status };
    if (this.#isIn) {
      this.#socket.send("user_presence", { ...more, document: this.document, status });
    }
  }

  /** Whoever opened it leaves it. After the last of them what was not acknowledged is given up. */
  leave(): void {
    this.#held -= 1;
    if (this.#held === 0) {
      this.end();
    }
  }

  // --- what its owner says --------------------------------------------------------------------------------------

  hold(): this {
    this.#held += 1;
    return this;
  }

  end(): void {
    this.#socket.send("unsubscribe", { document: this.document });
    clearTimeout(this.#resending);
    this.#isIn = false;
    this.#giveUp("LEFT", "the room was left");
    this.#owner.left();
  }

  /** How the connection is; it may be the first of its kind. */
  linked(status: Status): void {
    const isNew = status.state === "active" && this.#link.state !== "active";
    this.#link = status;
    if (status.state !== "active") {
      this.#isIn = false;
      this.#subscription = null;
      this.#resume();
    } else if (isNew) {
      this.#refused = null;
      this.#subscribe();
    }
    if (status.state === "removed") {
      this.#giveUp(status.code, "it is over");
    }
    this.#showStatus();
  }

  hear(id: string, type: string, payload: Subscribed & Readonly<Record<string, unknown>>): void {
    switch (type) {
      case "subscribed":
        if (id === this.#subscription) {
          this.#subscribed(payload);
        }
        return;
      case "unsubscribed":
        this.#unsubscribed((payload["error"] as Failure | null) ?? null);
        return;
      case "access_changed":
        this.#mayDo(payload.access);
        return;
      case "position":
        this.#stands(payload.position, payload["recovered"] === false);
        return;
      case "cursor_position":
        this.cursors.emit(payload as unknown as Relayed);
        return;
      case "user_presence":
        this.#shows(payload as unknown as RelayedStatus);
        return;
      default:
        this.#published(type, payload as unknown as RelayedEdit);
    }
  }

  /** `ack` or `error`, perhaps of another room. */
  answered(id: string, type: string, payload: Readonly<Record<string, unknown>>): void {
    if (id === this.#subscription && type === "error") {
      this.#subscription = null;
      this.#notSubscribed(payload as unknown as Failure);
      return;
    }
    const pending = this.#pending.get(id);
    if (pending === undefined) {
      return;
    }
    if (type === "ack") {
      const position = payload["position"] as Position | null;
      this.#pending.delete(id);
      this.#counted();
      if (position !== null) {
        this.#moveTo(position);
      }
      pending.resolve(position);
    } else {
      this.#refusedMessage(id, pending, payload as unknown as Failure);
    }
  }

  #refusedMessage(id: string, pending: Pending, failure: Failure): void {
    if (failure.code === "NOT_SUBSCRIBED") {
      this.#subscribe();
    } else if (failure.retry) {
      this.#resendAfter(Number(failure.details?.["retry_after_ms"]) || 1000);
    } else {
      this.#pending.delete(id);
      this.#counted();
      pending.reject(new NotPublished(failure.code, failure.message));
    }
  }

  // --- coming in and coming back --------------------------------------------------------------------------------

  #subscribe(): void {
    this.#isIn = false;
    this.#subscription = newId();
    const payload = { document: this.document, ...(this.#position === null ? {} : { since: this.#position }) };
    this.#socket.sendText(JSON.stringify({ id: this.#subscription, message_type: "subscribe", payload }));
  }

  #subscribed({ position, recovered, publications, presence, access }: Subscribed): void {
    const isReturn = this.#position !== null;
    this.#subscription = null;
    this.#isIn = true;
    this.#mayDo(access);
    const own = this.#session.id;
    this.#presence.set(presence.filter(({ session_info }) => session_info.session_id !== own));
    if (isReturn && !recovered) {
      this.#position = position;
      this.reload.emit(position);
    }
    for (const { message_type, payload } of recovered ? publications : []) {
      this.#publishedInOrder(message_type, payload);
    }
    this.#position = position;
    this.#showStatus();
    this.#resend();
    if (this.#shown !== null) {
      this.#socket.send("user_presence", this.#shown);
    }
  }

  #notSubscribed(failure: Failure): void {
    if (failure.retry) {
      this.#resendAfter(Number(failure.details?.["retry_after_ms"]) || 1000);
    } else {
      this.#unsubscribed(failure);
    }
  }

  #unsubscribed(failure: Failure | null): void {
    this.#isIn = false;
    if (failure !== null) {
      this.#refused = { state: "removed", code: failure.code.toLowerCase(), reason: (failure.details?.["reason"] as string) ?? null };
      this.#presence.set([]);
      this.#giveUp(failure.code, failure.message);
      this.#showStatus();
    }
  }

  #resendAfter(milliseconds: number): void {
    this.#resending ??= setTimeout(() => {
      this.#resume();
      if (this.#isIn) {
        this.#resend();
      } else if (this.#link.state === "active" && this.#subscription === null) {
        this.#subscribe();
      }
    }, milliseconds);
  }

  #resume(): void {
    clearTimeout(this.#resending);
    this.#resending = undefined;
  }

  /** In the order in which they were said. What was taken already is acknowledged once more, and not published. */
  #resend(): void {
    this.#resume();
    for (const { text } of this.#pending.values()) {
      this.#socket.sendText(text);
    }
  }

  // --- positions ------------------------------------------------------------------------------------------------

  #published(type: string, payload: RelayedEdit): void {
    const { position } = payload;
    if (position === undefined) {
      this.messages.emit({ type, payload }); // of a kind that is not kept
    } else if (this.#follows(position)) {
      this.#publishedInOrder(type, payload);
    } else if (!this.#isKnown(position) && this.#isIn) {
      this.#subscribe(); // something is missing before it
    }
  }

  #publishedInOrder(type: string, payload: RelayedEdit): void {
    this.#position = payload.position;
    if (!this.#pending.has(String(payload["message_id"]))) {
      this.messages.emit({ type, payload });
    }
  }

  /** Our own messages have their place in the order, too. */
  #moveTo(position: Position): void {
    if (this.#follows(position)) {
      this.#position = position;
    } else if (!this.#isKnown(position) && this.#isIn) {
      this.#subscribe();
    }
  }

  #stands(position: Position, isLost: boolean): void {
    if (isLost) {
      this.#position = position;
      this.reload.emit(position);
    } else if (!this.#isKnown(position) && this.#isIn) {
      this.#subscribe();
    }
  }

  #follows({ epoch, offset }: Position): boolean {
    return this.#position?.epoch === epoch && offset === this.#position.offset + 1;
  }

  #isKnown({ epoch, offset }: Position): boolean {
    return this.#position?.epoch === epoch && offset <= this.#position.offset;
  }

  // --- what is shown --------------------------------------------------------------------------------------------

  #shows(presence: RelayedStatus): void {
    const { session_id } = presence.session_info;
    const others = this.#presence.value.filter(({ session_info }) => session_info.session_id !== session_id);
    const isShown = presence.status !== "offline" && session_id !== this.#session.id;
    this.#presence.set(isShown ? [...others, presence] : others);
  }

  #mayDo(access: string): void {
    this.#access = access;
    this.#showStatus();
  }

  #showStatus(): void {
    const { unsaved } = this.#saved.value;
    if (this.#link.state === "offline") {
      this.#status.set({ state: "offline", unsaved });
    } else if (this.#link.state !== "active") {
      this.#status.set(this.#link);
    } else {
      const isIn: Status = { state: this.#access === "read" ? "readonly" : "active" };
      this.#status.set(this.#refused ?? (this.#isIn ? isIn : { state: "connecting" }));
    }
  }

  #counted(): void {
    this.#saved.set(savedWith(this.#pending.size));
    this.#owner.unsaved();
    this.#showStatus();
  }

  #giveUp(code: string, message: string): void {
    for (const { reject } of this.#pending.values()) {
      reject(new NotPublished(code, message));
    }
    this.#pending.clear();
    this.#counted();
  }
}
