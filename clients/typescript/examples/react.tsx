/** A page with React: who it is, whether it is saved, who else is there. */

import { Rooms, Session, type Status } from "@roomkey/client";
import { useDocument, usePresence, useRoom, useSaved, useSession } from "@roomkey/client/react";
import { openDocument } from "@roomkey/client/y-websocket";
import { type ReactNode, StrictMode, useEffect, useMemo, useReducer, useState } from "react";
import { createRoot } from "react-dom/client";

export function describe(status: Status): string {
  switch (status.state) {
    case "suspended":
      return status.reason === null ? "Access is suspended." : `Access is suspended: ${status.reason}`;
    case "expired":
      return "Log in again.";
    case "removed":
      return status.reason === null ? `You were removed: ${status.code}` : `You were removed: ${status.reason}`;
    case "offline":
      return `Offline. ${status.unsaved} changes are only here.`;
    default:
      return status.state;
  }
}

function Notes({ session, name }: { session: Session; name: string }): ReactNode {
  const { document, status } = useDocument(() => openDocument(session, name), [session, name]);
  const saved = useSaved(document);
  const people = usePresence(document);
  const text = useMemo(() => document?.doc.getText("content") ?? null, [document]);
  const [, redraw] = useReducer((count: number) => count + 1, 0);
  useEffect(() => {
    text?.observe(redraw);
    return () => text?.unobserve(redraw);
  }, [text]);
  return (
    <section>
      <p id="document">{describe(status)}</p>
      <p id="saved">{saved.state}</p>
      <p id="people">{people.map((person) => String(person["name"])).join(", ")}</p>
      <pre id="text">{text?.toString()}</pre>
      <button disabled={status.state !== "active"} onClick={() => text?.insert(text.length, "!")}>
        Write
      </button>
    </section>
  );
}

function Chat({ rooms, name }: { rooms: Rooms; name: string }): ReactNode {
  const { room, status } = useRoom(rooms, name);
  const [lines, setLines] = useState<string[]>([]);
  useEffect(() => room?.messages.on(({ payload }) => setLines((before) => [...before, String(payload["text"])])), [room]);
  return (
    <section>
      <p id="chat">{describe(status)}</p>
      <ol id="lines">{lines.map((line, index) => <li key={index}>{line}</li>)}</ol>
    </section>
  );
}

export function App({ session, name }: { session: Session; name: string }): ReactNode {
  const { status, facts } = useSession(session);
  const rooms = useMemo(() => new Rooms(session), [session]);
  return (
    <main>
      <h1 id="session">{describe(status)}</h1>
      <p id="user">{facts?.userId}</p>
      <Notes session={session} name={name} />
      <Chat rooms={rooms} name={name} />
    </main>
  );
}

export function start(session: Session, name: string): void {
  createRoot(document.getElementById("root")!).render(
    <StrictMode>
      <App session={session} name={name} />
    </StrictMode>,
  );
}
