/** The rooms of a session: all of them over one socket at `/ws`. */

import { Link, type Transport } from "./link.ts";
import { type Message, newId, type Subscribed } from "./messages.ts";
import { Room, type RoomSocket } from "./room.ts";
import { handshakeStatus } from "./sockets.ts";
import type { Session } from "./session.ts";

export class Rooms {
  readonly #session: Session;
  readonly #socket: RoomSocket;
  readonly #rooms: Map<string, Room> = new Map();
  readonly #link: Link;
  readonly #stopWatching: () => void;

  constructor(session: Session, options: { path?: string } = {}) {
    this.#session = session;
    const transport = new JsonTransport(session, options.path ?? "ws", {
      admitted: () => this.#link.admitted("write"),
      heard: () => this.#link.heard(),
      closed: (code, reason, afterMs) => this.#link.closed(code, reason, afterMs),
      message: (message) => this.#hear(message),
    });
    this.#socket = transport;
    this.#link = new Link(session, transport);
    this.#stopWatching = this.#link.status.subscribe(() => this.#each((room) => room.linked(this.#link.status.value)));
  }

  /** The room of a document: the same one, until everyone who opened it has left. */
  open(document: string): Room {
    let room = this.#rooms.get(document);
    if (room === undefined) {
      room = new Room(document, this.#session, this.#socket, {
        left: () => this.#rooms.delete(document),
        unsaved: () => this.#count(),
      });
      this.#rooms.set(document, room);
      this.#link.start();
      room.linked(this.#link.status.value);
    }
    return room.hold();
  }

  /** Leave all rooms and close the socket. */
  close(): void {
    this.#stopWatching();
    this.#each((room) => room.end());
    this.#link.stop();
  }

  #each(tell: (room: Room) => void): void {
    for (const room of [...this.#rooms.values()]) {
      tell(room);
    }
  }

  #count(): void {
    this.#link.unsaved([...this.#rooms.values()].reduce((sum, room) => sum + room.saved.value.unsaved, 0));
  }

  #hear({ id, message_type, payload }: Message): void {
    switch (message_type) {
      case "session_expiring":
        this.#expiring(payload as { expires_at: string; reason: string });
        return;
      case "error":
      case "ack":
        // An answer is to whoever asked; documents are not named in every error.
        this.#each((room) => room.answered(id, message_type, payload));
        return;
      default:
        this.#rooms.get(String(payload["document"]))?.hear(id, message_type, payload as Subscribed & typeof payload);
    }
  }

  #expiring({ expires_at, reason }: { expires_at: string; reason: string }): void {
    this.#session.expiring.emit({ at: new Date(expires_at), reason });
    if (reason === "lifetime") {
      void this.#session.renewAhead(); // a new one is sent by `renew`
    }
  }
}

interface Events {
  admitted: () => void;
  heard: () => void;
  closed: (code: number, reason: string, afterMs: number) => void;
  message: (message: Message) => void;
}

class JsonTransport implements Transport, RoomSocket {
  #socket: WebSocket | null = null;
  #reconnectAfterMs = 0;
  /** What the last message said, which a close reason has no room for. */
  #reason: string | null = null;

  readonly #session: Session;
  readonly #path: string;
  readonly #events: Events;

  constructor(session: Session, path: string, events: Events) {
    this.#session = session;
    this.#path = path;
    this.#events = events;
  }

  open(ticket: string | null): void {
    const { Socket } = this.#session;
    const url = this.#session.socketUrl(this.#path, ticket === null ? {} : { ticket });
    const socket = new Socket(url, ["roomkey.v1"]);
    this.#socket = socket;
    this.#reconnectAfterMs = 0;
    this.#reason = null;
    let refusedWith: number | null = null;
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(String(data)) as Message);
    socket.onerror = (event) => (refusedWith = handshakeStatus(event)); // `close` follows
    socket.onclose = ({ code, reason }) => {
      this.#socket = null;
      const text = this.#reason === null ? reason : `${reason.split(": ")[0]}: ${this.#reason}`;
      this.#events.closed(refusedWith ?? code, text, this.#reconnectAfterMs);
    };
  }

  close(): void {
    const socket = this.#socket;
    if (socket !== null) {
      this.#socket = null;
      socket.onmessage = socket.onclose = null;
      socket.close();
    }
  }

  probe(): void {
    this.send("heartbeat", {});
  }

  renew(token: string): void {
    this.send("session_refresh", { token });
  }

  send(message_type: string, payload: object): void {
    this.sendText(JSON.stringify({ id: newId(), message_type, payload }));
  }

  sendText(text: string): void {
    if (this.#socket?.readyState === 1) {
      this.#socket.send(text);
    }
  }

  #hear(message: Message): void {
    this.#events.heard();
    switch (message.message_type) {
      case "session_connected":
        this.#events.admitted();
        return;
      case "draining":
        this.#reconnectAfterMs = Number(message.payload["reconnect_after_ms"]) || 0;
        return;
      case "session_suspended":
      case "session_invalidated":
      case "session_disconnected":
        this.#reason = (message.payload["reason"] as string | null) ?? null;
        return;
      default:
        this.#events.message(message);
    }
  }
}
