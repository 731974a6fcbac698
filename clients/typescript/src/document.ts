/** A document of Yjs that is open, whichever provider brings its changes. */

import type * as Y from "yjs";

import { Cell, isAlike, Signal, type Watchable } from "./cell.ts";
import { Ledger } from "./ledger.ts";
import { Link, type Transport } from "./link.ts";
import { savedWith, type Saved } from "./room.ts";
import type { Session } from "./session.ts";
import type { Access } from "./situation.ts";
import { readVarUint, watchedSocket } from "./sockets.ts";
import type { Status } from "./verdict.ts";

/** What y-protocols calls awareness. */
export interface Awareness {
  getStates(): Map<number, Record<string, unknown>>;
  setLocalStateField(field: string, value: unknown): void;
  on(event: "change", listener: () => void): void;
  off(event: "change", listener: () => void): void;
}

/** What others show of themselves: their awareness state. */
export type Person = Readonly<Record<string, unknown>> & { readonly clientId: number };

export interface OpenDocument<Provider = unknown> {
  readonly name: string;
  readonly doc: Y.Doc;
  /** For the binding of the editor. */
  readonly provider: Provider;
  readonly awareness: Awareness;
  readonly status: Watchable<Status>;
  readonly saved: Watchable<Saved>;
  /** The others; after a pause without those who left meanwhile. */
  readonly presence: Watchable<readonly Person[]>;
  /** Whether changes reach others later than they should. */
  readonly delayed: Watchable<boolean>;
  /** Which history of the document the copy is of, as far as that is known and can be said. */
  readonly lineage: string | null;
  /** The server did not take a change or a state, and why. */
  readonly refused: Signal<string>;
  /** Show the others a field of ours, such as `user` or `cursor`. */
  show(field: string, value: unknown): void;
  close(): void;
}

const SYNC = 0;
const STEP_2 = 1;
const UPDATE = 2;

/** How a provider is connected and told that it is over. */
export interface DocumentTransport extends Transport {
  /** Be gone for good. */
  destroy(): void;
}

/** Everything about an open document that its provider does not do. A provider is built with `Socket`. */
export class DocumentLink<Provider> implements OpenDocument<Provider> {
  readonly status: Cell<Status> = new Cell<Status>({ state: "connecting" }, isAlike);
  readonly saved: Cell<Saved> = new Cell<Saved>(savedWith(0), isAlike);
  readonly presence: Cell<readonly Person[]> = new Cell<readonly Person[]>([]);
  readonly delayed: Cell<boolean> = new Cell(false);
  readonly refused: Signal<string> = new Signal();
  lineage: string | null = null;
  provider!: Provider;
  awareness!: Awareness;
  readonly link: Link;
  readonly #ledger = new Ledger();
  readonly #destroy: () => void;
  readonly #hear: (frame: Uint8Array) => void;
  readonly #addressBytes: number;
  #access: Access = "write";
  #isConnected = false;
  #handshake: number | null = null;

  constructor(
    readonly session: Session,
    readonly name: string,
    readonly doc: Y.Doc,
    transport: DocumentTransport,
    hear: (frame: Uint8Array) => void,
    /** Where in a frame its type stands. */
    addressBytes: number,
  ) {
    this.#destroy = () => transport.destroy();
    this.#hear = hear;
    this.#addressBytes = addressBytes;
    if (doc.store.clients.size > 0) {
      this.#ledger.wrote(); // it may have come from anywhere
    }
    // Before the provider sends a change, it is counted.
    doc.on("update", this.#onUpdate);
    this.link = new Link(session, {
      open: (ticket) => {
        this.#isConnected = true;
        this.#access = "write";
        this.#handshake = null;
        this.#ledger.opened();
        transport.open(ticket);
      },
      close: () => {
        this.#isConnected = false;
        transport.close();
      },
      probe: () => transport.probe(),
      renew: (token) => transport.renew?.(token),
    });
    this.link.status.subscribe((status) => this.status.set(status));
    this.#count();
  }

  /** The class of sockets for the provider. */
  get Socket(): typeof WebSocket {
    return watchedSocket(this.session.Socket, {
      received: (frame) => this.#received(frame),
      sent: (frame) => this.#sent(frame),
      refused: (status) => (this.#handshake = status),
    });
  }

  /** Follow the provider that was built; changes with this origin are those of others. */
  begin(provider: Provider, awareness: Awareness): this {
    this.provider = provider;
    this.awareness = awareness;
    awareness.on("change", this.#onAwareness);
    this.link.start();
    return this;
  }

  show(field: string, value: unknown): void {
    this.awareness.setLocalStateField(field, value);
  }

  close(): void {
    this.doc.off("update", this.#onUpdate);
    this.awareness.off("change", this.#onAwareness);
    this.link.stop();
    this.#destroy();
  }

  // --- what the provider says -----------------------------------------------------------------------------------

  closed(code: number, reason: string): void {
    if (this.#isConnected) {
      this.#isConnected = false;
      this.delayed.set(false); // it is said again on each connection, if it is so
      this.link.closed(this.#handshake ?? code, reason);
    }
  }

  /** The document has arrived. */
  arrived(): void {
    if (this.#isConnected) {
      this.link.admitted(this.#access);
    }
  }

  mayDo(access: Access): void {
    this.#access = access;
    this.link.access(access);
  }

  durable(frames?: number): void {
    if (frames === undefined) {
      this.#ledger.nextDurable();
    } else {
      this.#ledger.durable(frames);
    }
    this.#count();
  }

  // --- frames ---------------------------------------------------------------------------------------------------

  #received(frame: Uint8Array): void {
    this.link.heard();
    this.#hear(frame);
  }

  #sent(frame: Uint8Array): void {
    const [type, at] = readVarUint(frame, this.#addressBytes);
    const [step] = readVarUint(frame, at);
    if (type === SYNC && (step === STEP_2 || step === UPDATE)) {
      this.#ledger.sent(step === STEP_2);
    }
  }

  readonly #onUpdate = (_update: Uint8Array, origin: unknown): void => {
    // Before there is a provider nothing is of others.
    if (origin === undefined || origin !== this.provider) {
      this.#ledger.wrote();
      this.#count();
    }
  };

  readonly #onAwareness = (): void => {
    const states = [...(this.awareness.getStates())];
    const others = states.filter(([clientId]) => clientId !== this.doc.clientID);
    this.presence.set(others.map(([clientId, state]) => ({ ...state, clientId })));
  };

  #count(): void {
    const { unsaved } = this.#ledger;
    this.saved.set(savedWith(unsaved));
    this.link.unsaved(unsaved);
  }
}
