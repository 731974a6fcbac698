import { Compartment, EditorState } from "@codemirror/state";
import { keymap } from "@codemirror/view";
import type { Session } from "@roomkey/client";
import { openDocument } from "@roomkey/client/y-websocket";
import { basicSetup, EditorView } from "codemirror";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";

import { mayWrite, type User } from "./writer";

export function mount(parent: HTMLElement, session: Session, name: string, user: User) {
  const document = openDocument(session, name);
  document.show("user", user);
  const text = document.doc.getText("content");
  const locked = new Compartment();
  const view = new EditorView({
    parent,
    doc: text.toString(),
    extensions: [
      keymap.of(yUndoManagerKeymap), // before the undo of basicSetup, which knows no other people
      basicSetup,
      yCollab(text, document.awareness),
      locked.of([]),
    ],
  });
  document.status.subscribe((status) => {
    const lock = [EditorState.readOnly.of(true), EditorView.editable.of(false)];
    view.dispatch({ effects: locked.reconfigure(mayWrite(status) ? [] : lock) });
  });
  return document;
}
