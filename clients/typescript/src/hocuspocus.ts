/** Documents of Yjs by the provider of Hocuspocus. */

import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import * as Y from "yjs";

import { type Awareness, DocumentLink, type DocumentTransport, type OpenDocument as AnyDocument } from "./document.ts";
import type { Session } from "./session.ts";
import { readVarUint, varUint } from "./sockets.ts";

export type { Awareness, Person } from "./document.ts";

/** With the provider that keeps it connected, for the binding of an editor. */
export type OpenDocument<Provider = HocuspocusProvider> = AnyDocument<Provider>;

const SYNC_STATUS = 8;

export interface DocumentOptions {
  /** Below the address of Roomkey. */
  path?: string;
}

class DroppableSocket extends HocuspocusProviderWebsocket {
  /** Be closed at once, not when the other side has agreed: the provider forgets who was there. */
  drop(): void {
    this.emit("close", { event: { code: 1000, reason: "" } });
  }
}

/** Open a document, and keep it connected until it is closed. */
export function openDocument(
  session: Session,
  name: string,
  doc: Y.Doc = new Y.Doc(),
  options: DocumentOptions = {},
): OpenDocument {
  const path = options.path ?? "hocuspocus";
  const nameBytes = new TextEncoder().encode(name).length;
  const addressBytes = varUint(nameBytes).length + nameBytes;
  /** What is shown as a token when a socket opens: nothing, because the ticket or the cookie is the credential. */
  let isOpening = true;
  let isRenewing = false;

  const transport: DocumentTransport = {
    open(ticket) {
      isOpening = true;
      socket.setConfiguration({ url: session.socketUrl(path, ticket === null ? {} : { ticket }) });
      void socket.connect();
    },
    close() {
      socket.shouldConnect = false;
      if (socket.webSocket !== null) {
        socket.drop();
      }
    },
    probe: () => provider.forceSync(),
    renew() {
      isRenewing = true;
      void provider.sendToken().finally(() => (isRenewing = false));
    },
    destroy() {
      provider.destroy();
      socket.destroy();
    },
  };

  const token = async (): Promise<string> => {
    if (isOpening) {
      isOpening = false;
      return "";
    }
    if (!isRenewing) {
      await session.renewAhead(); // the server asks
    }
    return session.token ?? "";
  };

  const hear = (frame: Uint8Array): void => {
    if (frame.length > 1 && readVarUint(frame, addressBytes)[0] === SYNC_STATUS) {
      if (frame[addressBytes + 1] === 1) {
        link.durable();
      } else {
        link.refused.emit("not-taken");
      }
    }
  };

  const link = new DocumentLink<HocuspocusProvider>(session, name, doc, transport, hear, addressBytes);
  const socket = new DroppableSocket({
    url: session.socketUrl(path),
    autoConnect: false,
    WebSocketPolyfill: link.Socket,
    maxAttempts: 1,
    // It is called before the socket decides to connect again, which is not for it to say.
    onClose: ({ event }) => {
      socket.shouldConnect = false;
      link.closed(event.code, event.reason);
    },
  });
  const provider = new HocuspocusProvider({
    websocketProvider: socket,
    name,
    document: doc,
    token,
    onAuthenticationFailed: ({ reason }) => link.closed(4401, reason),
    onAuthenticated: ({ scope }) => link.mayDo(scope === "readonly" ? "read" : "write"),
    onSynced: () => link.arrived(),
    onClose: ({ event }) => link.closed(event.code, event.reason),
    onStateless: ({ payload }) => hearStateless(payload),
  });

  const hearStateless = (payload: string): void => {
    try {
      const { type, degraded } = JSON.parse(payload) as { type?: unknown; degraded?: unknown };
      if (type === "roomkey.service") {
        link.delayed.set(degraded === true);
      }
    } catch {
      // It is the application's.
    }
  };

  provider.attach();
  return link.begin(provider, provider.awareness as Awareness);
}
