/** The same for Vue: `const { document, status } = useDocument(() => openDocument(session, "plan"))` in `setup`. */

import type { Facts, Room, Rooms, Saved, Session, Status, Watchable } from "@roomkey/client";
import type { OpenDocument } from "@roomkey/client/y-websocket";
import { onScopeDispose, type Ref, shallowReadonly, shallowRef } from "vue";

export function useWatched<T>(watched: Watchable<T>): Readonly<Ref<T>> {
  const value = shallowRef(watched.value) as Ref<T>;
  onScopeDispose(watched.subscribe((next) => (value.value = next)));
  return shallowReadonly(value);
}

export function useSession(session: Session): { status: Readonly<Ref<Status>>; facts: Readonly<Ref<Facts | null>> } {
  return { status: useWatched(session.status), facts: useWatched(session.facts) };
}

export function useRoom(rooms: Rooms, name: string): { room: Room; status: Readonly<Ref<Status>> } {
  const room = rooms.open(name);
  onScopeDispose(() => room.leave());
  return { room, status: useWatched(room.status) };
}

export function useDocument<T extends OpenDocument<unknown>>(open: () => T): { document: T; status: Readonly<Ref<Status>> } {
  const document = open();
  onScopeDispose(() => document.close());
  return { document, status: useWatched(document.status) };
}

export function usePresence<T>(place: { readonly presence: Watchable<readonly T[]> }): Readonly<Ref<readonly T[]>> {
  return useWatched(place.presence);
}

export function useSaved(place: { readonly saved: Watchable<Saved> }): Readonly<Ref<Saved>> {
  return useWatched(place.saved);
}
