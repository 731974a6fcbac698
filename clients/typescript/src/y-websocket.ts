/** Documents of Yjs by the provider of y-websocket, one socket each. */

import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

import { DocumentLink, type DocumentTransport, type OpenDocument as AnyDocument } from "./document.ts";
import type { Session } from "./session.ts";
import { readVarString, readVarUint, varUint } from "./sockets.ts";

export type { Awareness, Person } from "./document.ts";

/** With the provider that keeps it connected, for the binding of an editor. */
export type OpenDocument<Provider = WebsocketProvider> = AnyDocument<Provider>;

/** Types of messages: y-protocols' "sync" and "auth", and those that `?status=1` adds. */
const SYNC = 0;
const STEP_1 = 0;
const AUTH = 2;
const DURABLE = 8;
const SERVICE = 9;

const READ_ONLY = "read-only";

export interface DocumentOptions {
  /** Below the address of Roomkey. */
  path?: string;
  /** Further options of the provider; those that decide when it connects are not obeyed. */
  provider?: ConstructorParameters<typeof WebsocketProvider>[3];
}

/** Open a document, and keep it connected until it is closed. */
export function openDocument(
  session: Session,
  name: string,
  doc: Y.Doc = new Y.Doc(),
  options: DocumentOptions = {},
): OpenDocument {
  const transport: DocumentTransport = {
    open(ticket) {
      // A copy of another history of the document would be merged into this one, if the server did not know.
      provider.params = { status: "1", ...(link.lineage === null ? {} : { lineage: link.lineage }), ...(ticket === null ? {} : { ticket }) };
      hasArrived = false;
      provider.connect();
    },
    close() {
      provider.shouldConnect = false;
      if (provider.ws !== null) {
        provider.disconnect();
      }
    },
    probe() {
      // A step 1 is always answered.
      const state = Y.encodeStateVector(doc);
      provider.ws?.send(new Uint8Array([0, 0, ...varUint(state.length), ...state]));
    },
    destroy() {
      provider.destroy();
      provider.awareness.destroy();
    },
  };

  const hear = (frame: Uint8Array): void => {
    const [type, at] = readVarUint(frame, 0);
    if (type === SYNC && frame[at] === STEP_1 && hasArrived) {
      link.mayDo("write"); // it wants what it has refused before; if it still refuses that, it says so again
    } else if (type === AUTH) {
      const reason = readVarString(frame, at + 1);
      if (reason === READ_ONLY) {
        link.mayDo("read");
      }
      link.refused.emit(reason);
    } else if (type === DURABLE) {
      link.durable(readVarUint(frame, at)[0]);
      void learnLineage();
    } else if (type === SERVICE) {
      link.delayed.set(frame[at] !== 0);
    }
  };

  let hasArrived = false;
  let isAsking = false;
  const learnLineage = async (): Promise<void> => {
    if (link.lineage === null && !isAsking && doc.store.clients.size > 0) {
      isAsking = true;
      const answer = await session.request("HEAD", `documents/${encodeURIComponent(name)}`).catch(() => null);
      isAsking = false;
      link.lineage = answer?.headers.get("roomkey-lineage") ?? null;
    }
  };

  const link = new DocumentLink<WebsocketProvider>(session, name, doc, transport, hear, 0);
  const provider = new WebsocketProvider(
    session.socketUrl(options.path ?? "yjs"),
    name.split("/").map(encodeURIComponent).join("/"),
    doc,
    {
      // Windows of one browser would exchange edits without the server, whatever it thinks of their sessions.
      disableBc: true,
      ...options.provider,
      connect: false,
      protocols: ["roomkey.v1"],
      WebSocketPolyfill: link.Socket,
    },
  );
  for (const type of [AUTH, DURABLE, SERVICE]) {
    provider.messageHandlers[type] = () => {};
  }
  provider.on("connection-close", (event) => {
    provider.shouldConnect = false; // when to connect again is not for the provider to say
    link.closed(event?.code ?? 1006, event?.reason ?? "");
  });
  provider.on("sync", (isSynced) => {
    if (isSynced) {
      hasArrived = true;
      link.arrived();
    }
  });
  return link.begin(provider, provider.awareness);
}
