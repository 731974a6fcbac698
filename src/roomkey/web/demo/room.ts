/** One document over one connection: what is in it, who is in it, and what of it has been saved. */

import { readVarString, readVarUint, type Decoder } from "lib0/decoding";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

import { roomName, sockets } from "./address";
import { colourOf } from "./names";
import { Refusal } from "./rest";

/** Types of messages: y-protocols' "auth", and the one that `?status=1` adds. */
const AUTH = 2;
const DURABLE = 8;
/** And that says whether changes reach others later than they should. */
const SERVICE = 9;

/** Asks to be told what is durable. */
const STATUS = { status: "1" };

/** How long the changes may take under way on which a change of the server builds. */
const UNDER_WAY_MS = 5000;

const SYNC = 0;
const SYNC_STEP_2 = 1;
const SYNC_UPDATE = 2;

export type Connection = "disconnected" | "connecting" | "connected";

/** What others see of somebody. `session` is missing in editors that are not this page. */
export interface Person {
  name: string;
  color: string;
  colorLight: string;
  session?: string;
}

/** Counts what it sends as the server counts it: updates, and answers to its question for them. */
class CountingSocket extends WebSocket {
  sent = 0;
  /** How often everything that the server did not have was sent. */
  answers = 0;

  override send(data: ArrayBufferView<ArrayBuffer>): void {
    const [type, step] = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
    if (type === SYNC && (step === SYNC_STEP_2 || step === SYNC_UPDATE)) {
      this.sent += 1;
      this.answers += step === SYNC_STEP_2 ? 1 : 0;
    }
    super.send(data);
  }
}

interface Events {
  /** Something that `Room` shows is different now. */
  changed: () => void;
  /** Somebody came into the document. */
  joined: () => void;
  /** The server closed the connection and gave a reason. */
  closed: (code: number) => void;
}

export class Room {
  readonly text: Y.Text;
  readonly provider: WebsocketProvider;

  connection: Connection = "disconnected";
  /** Whether there are edits that the server has not yet said are on its disk. */
  pending = false;
  /** Why the server refuses edits, if it does. */
  denied: string | null = null;
  private answersWhenDenied = 0;
  /** Whether the server said that what is written here reaches others later. */
  delayed = false;
  /** Whether the document has arrived at least once. */
  arrived = false;

  constructor(
    readonly doc: Y.Doc,
    session: { id: string; user: string; token: string },
    private readonly events: Events,
  ) {
    this.text = doc.getText("content");
    this.provider = new WebsocketProvider(sockets, roomName, doc, {
      connect: false,
      // Windows of one browser would exchange edits without the server, whatever it thinks of their sessions.
      disableBc: true,
      params: { ...STATUS },
      // Tokens stay out of addresses, which reach logs. The server selects the first.
      protocols: ["roomkey.v1", `roomkey.token.${session.token}`],
      WebSocketPolyfill: CountingSocket,
    });
    const color = colourOf(session.user);
    const me: Person = { name: session.user, color, colorLight: `${color}40`, session: session.id };
    this.provider.awareness.setLocalStateField("user", me);
    this.listen();
  }

  /** Everyone in the document whose name is known, this window included. */
  get people(): Person[] {
    const states = [...this.provider.awareness.getStates().values()];
    return states.flatMap((state) => (state["user"] === undefined ? [] : [state["user"] as Person]));
  }

  /** Whether it connects, and connects again; it stops when asked to, or when the server said that it is no use. */
  get wantsConnection(): boolean {
    return this.provider.shouldConnect;
  }

  connect(): void {
    this.provider.connect();
  }

  disconnect(): void {
    this.provider.disconnect();
  }

  /** Whether the server has stored something of the document, so that it can be asked about it. */
  get stored(): boolean {
    return this.arrived && !this.pending && this.doc.store.clients.size > 0;
  }

  /** Whether nobody has ever written anything. */
  get isNew(): boolean {
    return this.arrived && this.doc.store.clients.size === 0;
  }

  /** Which history of the document ours is. It is stated from now on, so that ours is not merged into another. */
  get lineage(): string | null {
    return this.provider.params["lineage"] ?? null;
  }

  set lineage(lineage: string | null) {
    this.provider.params = lineage === null ? { ...STATUS } : { ...STATUS, lineage };
  }

  /** Return when everything is here that `update` builds on: it may come by another way than the changes before it. */
  async hasWhatPrecedes(update: Uint8Array): Promise<void> {
    const giveUpAt = Date.now() + UNDER_WAY_MS;
    while (!builds(this.doc, update)) {
      if (Date.now() > giveUpAt) {
        throw new Refusal(0, "Changes of others are still under way. Try again in a moment.");
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  leave(): void {
    this.provider.destroy();
    this.provider.awareness.destroy();
  }

  private listen(): void {
    const { provider, events } = this;
    this.doc.on("update", (_update: Uint8Array, origin: unknown) => {
      if (origin !== provider && !this.pending) {
        this.pending = true;
        events.changed();
      }
    });
    provider.on("status", ({ status }) => {
      this.connection = status;
      if (status === "connected") {
        this.denied = null;
      }
      // It is said again on every connection, if it is so.
      this.delayed = false;
      events.changed();
    });
    provider.on("sync", (synced) => {
      this.arrived ||= synced;
      events.changed();
    });
    provider.on("connection-close", (event) => {
      if (event !== null) {
        events.closed(event.code);
      }
    });
    provider.awareness.on("change", ({ added }: { added: number[] }) => {
      events.changed();
      if (added.length > 0) {
        events.joined();
      }
    });
    provider.messageHandlers[AUTH] = (_reply, message) => this.hearDenied(message);
    provider.messageHandlers[DURABLE] = (_reply, message) => this.hearDurable(message);
    provider.messageHandlers[SERVICE] = (_reply, message) => {
      this.delayed = readVarUint(message) !== 0;
      events.changed();
    };
  }

  private hearDenied(message: Decoder): void {
    readVarUint(message);
    this.denied = readVarString(message);
    this.answersWhenDenied = this.socket?.answers ?? 0;
    this.events.changed();
  }

  private hearDurable(message: Decoder): void {
    const durable = readVarUint(message);
    const { socket } = this;
    if (socket === null || socket.answers === 0) {
      return;
    }
    if (this.denied !== null && socket.answers > this.answersWhenDenied) {
      // The server asked again, because we may write now. What it refused was sent and not counted: begin to count anew.
      this.disconnect();
      this.connect();
    } else if (durable >= socket.sent) {
      this.pending = false;
      this.events.changed();
    }
  }

  private get socket(): CountingSocket | null {
    return this.provider.ws as CountingSocket | null;
  }
}

function builds(doc: Y.Doc, update: Uint8Array): boolean {
  const copy = new Y.Doc();
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc));
  Y.applyUpdate(copy, update);
  const { pendingStructs, pendingDs } = copy.store;
  copy.destroy();
  return pendingStructs === null && pendingDs === null;
}
