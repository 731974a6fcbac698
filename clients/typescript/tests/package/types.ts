/** What the types of the packed library allow, and what they do not; it is compiled, and not run. */

import { NotPublished, type Position, Rooms, Session, type Status } from "@roomkey/client";
import { openDocument as openHocuspocus } from "@roomkey/client/hocuspocus";
import { useDocument, usePresence, useRoom, useSaved, useSession } from "@roomkey/client/react";
import { openDocument } from "@roomkey/client/y-websocket";
import type { HocuspocusProvider } from "@hocuspocus/provider";
import type { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false;
const isTrue = <T extends true>(): T | undefined => undefined;

const session = new Session({ url: "https://rooms.example.com", token: "t", renew: async () => null });
const room = new Rooms(session).open("plan");

/** Every state, and nothing else, has to be shown. */
export function show(status: Status): string {
  switch (status.state) {
    case "connecting":
    case "active":
    case "readonly":
      return status.state;
    case "suspended":
      return status.reason ?? "";
    case "expired":
      return status.code;
    case "removed":
      return `${status.code} ${status.reason ?? ""}`;
    case "offline":
      return String(status.unsaved);
  }
}

isTrue<Same<ReturnType<typeof room.publish>, Promise<Position | null>>>();
isTrue<Same<(typeof room.saved.value)["state"], "saving" | "saved">>();
const document = openDocument(session, "plan", new Y.Doc());
isTrue<Same<typeof document.provider, WebsocketProvider>>();
isTrue<Same<ReturnType<typeof openHocuspocus>["provider"], HocuspocusProvider>>();

export function Component(): string {
  const { status, facts } = useSession(session);
  const { room: joined, status: there } = useRoom(new Rooms(session), "plan");
  const { document: opened } = useDocument(() => openDocument(session, "plan"), []);
  isTrue<Same<typeof opened, ReturnType<typeof openDocument> | null>>();
  const others = usePresence(joined).map(({ session_info }) => session_info.user_id);
  const people = usePresence(opened).map(({ clientId }) => clientId);
  return [show(status), show(there), facts?.userId, others, people, useSaved(joined).unsaved].join();
}

// @ts-expect-error  only an offline status says how much is unsaved
export const unsaved = room.status.value.unsaved;
// @ts-expect-error  what others watch is not set from outside
room.status.value = { state: "active" };
// @ts-expect-error  where Roomkey is has to be said
new Session({ token: "t" });
// @ts-expect-error  a message is an object
room.publish("text");
export const failed = (error: unknown): string => (error instanceof NotPublished ? error.code : "");
