import "quill/dist/quill.snow.css";

import type { Session } from "@roomkey/client";
import { openDocument } from "@roomkey/client/y-websocket";
import Quill from "quill";
import QuillCursors from "quill-cursors";
import { QuillBinding } from "y-quill";

import { mayWrite, type User } from "./writer";

Quill.register("modules/cursors", QuillCursors);

export function mount(element: HTMLElement, session: Session, name: string, user: User) {
  const document = openDocument(session, name);
  document.show("user", user);
  const quill = new Quill(element, {
    theme: "snow",
    modules: { cursors: true, history: { userOnly: true } },
  });
  new QuillBinding(document.doc.getText("content"), quill, document.provider.awareness);
  document.status.subscribe((status) => quill.enable(mayWrite(status)));
  return document;
}
