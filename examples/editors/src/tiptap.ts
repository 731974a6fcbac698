import type { Session } from "@roomkey/client";
import { openDocument } from "@roomkey/client/y-websocket";
import { Editor } from "@tiptap/core";
import Collaboration from "@tiptap/extension-collaboration";
import CollaborationCaret from "@tiptap/extension-collaboration-caret";
import StarterKit from "@tiptap/starter-kit";

import { mayWrite, type User } from "./writer";

export function mount(element: HTMLElement, session: Session, name: string, user: User) {
  const document = openDocument(session, name);
  const editor = new Editor({
    element,
    extensions: [
      StarterKit.configure({ undoRedo: false }), // Collaboration undoes what this user did
      Collaboration.configure({ document: document.doc }),
      CollaborationCaret.configure({ provider: document.provider, user }),
    ],
  });
  document.status.subscribe((status) => editor.setEditable(mayWrite(status)));
  return document;
}
