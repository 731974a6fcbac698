import type { Session, Status } from "@roomkey/client";
import { useDocument, usePresence, useSaved } from "@roomkey/client/react";
import { openDocument } from "@roomkey/client/y-websocket";

import { fetchToken, type User } from "./api";
import { Editor } from "./Editor";
import { LogIn } from "./LogIn";
import { Members } from "./Members";

interface NoteProps {
  session: Session;
  user: User;
  name: string;
  logOut: () => void;
}

export function Note({ session, user, name, logOut }: NoteProps) {
  const { document, status } = useDocument(() => openDocument(session, name), [session, name]);
  const saved = useSaved(document);
  const others = usePresence(document).map((other) => (other["user"] as { name: string } | undefined)?.name);

  async function goOn() {
    const token = await fetchToken();
    if (token !== null) {
      session.use(token);
    }
  }

  return (
    <>
      <header>
        <h1>{name}</h1>
        <span className="others">{others.filter(Boolean).map((other) => <span key={other}>{other}</span>)}</span>
        <span className="saved">{saved.state === "saved" ? "Saved" : "Saving …"}</span>
        <button onClick={logOut}>Log {user.name} out</button>
      </header>
      <main>
        <p className={`banner ${status.state}`} role="status">
          {sentence(status)}
        </p>
        {needsLogIn(status) && <LogIn title="Log in to go on" done={() => void goOn()} />}
        {document !== null && MAY_LOOK.has(status.state) && (
          <Editor document={document} user={user} canWrite={MAY_WRITE.has(status.state)} />
        )}
        {user.isAdmin && <Members document={name} />}
      </main>
    </>
  );
}

/** Without a connection people go on writing: it is kept here, and merged later. */
const MAY_WRITE = new Set(["active", "connecting", "offline"]);
const MAY_LOOK = new Set([...MAY_WRITE, "readonly", "expired"]);

/** When another token goes on. Who was removed from the note alone has a good one. */
function needsLogIn(status: Status): boolean {
  return status.state === "expired" || (status.state === "removed" && status.code === "session_invalidated");
}

/** The whole state machine: what the user is told in each state. */
function sentence(status: Status): string {
  switch (status.state) {
    case "connecting":
      return "Connecting …";
    case "active":
      return "You are connected.";
    case "readonly":
      return "You may read this note.";
    case "suspended":
      return `Your access is suspended${because(status.reason)} Wait here: it goes on by itself.`;
    case "expired":
      return "Your log-in is over. What you wrote is still here.";
    case "removed":
      if (status.code === "session_invalidated") {
        return `Your session has ended${because(status.reason)}`;
      }
      return `You were removed${because(status.reason ?? MEANINGS[status.code] ?? status.code)}`;
    case "offline":
      return status.unsaved === 0
        ? "You are offline. Everything is saved."
        : `You are offline. Changes that are only here: ${status.unsaved}.`;
  }
}

const because = (reason: string | null): string => (reason === null ? "." : `: ${reason}.`);

/** In place of codes; docs/client.md has all of them. */
const MEANINGS: Record<string, string> = {
  forbidden: "you are no member of this note",
  document_deleted: "the note was deleted",
};
