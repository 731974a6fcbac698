/** The editor that the address names, for a test: `?editor=quill&name=notes/plan&user=Ada&url=http://…#token`. */

import { Session } from "@roomkey/client";
import { type ComponentType, StrictMode } from "react";
import { createRoot } from "react-dom/client";

import type { User } from "./writer";

type Place = { session: Session; name: string; user: User };
type Mount = (element: HTMLElement, session: Session, name: string, user: User) => unknown;

const react =
  (Editor: ComponentType<Place>): Mount =>
  (element, session, name, user) =>
    createRoot(element).render(
      <StrictMode>
        <Editor session={session} name={name} user={user} />
      </StrictMode>,
    );

const EDITORS: Record<string, () => Promise<Mount>> = {
  blocknote: async () => react((await import("./blocknote")).Editor),
  codemirror: async () => (await import("./codemirror")).mount,
  lexical: async () => react((await import("./lexical")).Editor),
  monaco: async () => (await import("./monaco")).mount,
  prosemirror: async () => (await import("./prosemirror")).mount,
  quill: async () => (await import("./quill")).mount,
  tiptap: async () => (await import("./tiptap")).mount,
};

const asked = new URLSearchParams(location.search);
const session = new Session({ url: asked.get("url")!, token: location.hash.slice(1) });
const mount = await EDITORS[asked.get("editor")!]!();
mount(document.getElementById("editor")!, session, asked.get("name")!, { name: asked.get("user")!, color: "#2f5bd0" });
