/** The same for Vue: `const { status, saved } = useRoom(rooms, "plan")` in `setup`. */

import type { Room, Rooms, Saved, Session, Status, Watchable } from "@roomkey/client";
import { onScopeDispose, readonly, type Ref, shallowRef } from "vue";

export function useWatched<T>(watched: Watchable<T>): Readonly<Ref<T>> {
  const value = shallowRef(watched.value) as Ref<T>;
  onScopeDispose(watched.subscribe((next) => (value.value = next)));
  return readonly(value) as Readonly<Ref<T>>;
}

export const useSession = (session: Session): Readonly<Ref<Status>> => useWatched(session.status);

export function useRoom(rooms: Rooms, document: string): { room: Room; status: Readonly<Ref<Status>>; saved: Readonly<Ref<Saved>> } {
  const room = rooms.open(document);
  onScopeDispose(() => room.leave());
  return { room, status: useWatched(room.status), saved: useWatched(room.saved) };
}
