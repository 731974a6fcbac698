/** Hooks of React. What they return changes whenever the session or the room does. */

import { type DependencyList, useCallback, useEffect, useState, useSyncExternalStore } from "react";

import type { Watchable } from "./cell.ts";
import type { OpenDocument } from "./document.ts";
import type { Room, Saved } from "./room.ts";
import type { Rooms } from "./rooms.ts";
import type { Facts, Session } from "./session.ts";
import type { Status } from "./verdict.ts";

const CONNECTING: Watchable<Status> = constant({ state: "connecting" });
const SAVED: Watchable<Saved> = constant({ state: "saved", unsaved: 0 });
const NOBODY: Watchable<readonly never[]> = constant([]);

/** The value of anything that can be watched. */
export function useWatched<T>(watched: Watchable<T>): T {
  const subscribe = useCallback((changed: () => void) => watched.subscribe(changed), [watched]);
  const read = (): T => watched.value;
  return useSyncExternalStore(subscribe, read, read);
}

/** How a session is, and what the server says of it. */
export function useSession(session: Session): { readonly status: Status; readonly facts: Facts | null } {
  return { status: useWatched(session.status), facts: useWatched(session.facts) };
}

/** A room, for as long as the component is there; `null` before that. */
export function useRoom(rooms: Rooms, document: string): { readonly room: Room | null; readonly status: Status } {
  const room = useOpened(() => {
    const opened = rooms.open(document);
    return [opened, () => opened.leave()];
  }, [rooms, document]);
  return { room, status: useWatched(room?.status ?? CONNECTING) };
}

/** A document of Yjs, opened by `open`, for as long as the component is there and `dependencies` stay the same. */
export function useDocument<T extends OpenDocument>(
  open: () => T,
  dependencies: DependencyList,
): { readonly document: T | null; readonly status: Status } {
  const document = useOpened(() => {
    const opened = open();
    return [opened, () => opened.close()];
  }, dependencies);
  return { document, status: useWatched(document?.status ?? CONNECTING) };
}

/** The others in a room or a document. */
export function usePresence<T>(place: { readonly presence: Watchable<readonly T[]> } | null): readonly T[] {
  return useWatched(place?.presence ?? NOBODY);
}

/** Whether everything that was written is where it survives. */
export function useSaved(place: { readonly saved: Watchable<Saved> } | null): Saved {
  return useWatched(place?.saved ?? SAVED);
}

function useOpened<T>(open: () => [opened: T, close: () => void], dependencies: DependencyList): T | null {
  const [opened, setOpened] = useState<T | null>(null);
  useEffect(() => {
    const [value, close] = open();
    setOpened(value);
    return () => {
      setOpened(null);
      close();
    };
  }, dependencies);
  return opened;
}

function constant<T>(value: T): Watchable<T> {
  return { value, subscribe: (watcher) => (watcher(value), () => {}) };
}
