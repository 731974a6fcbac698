import "prosemirror-view/style/prosemirror.css";

import type { Session } from "@roomkey/client";
import { openDocument } from "@roomkey/client/y-websocket";
import { baseKeymap } from "prosemirror-commands";
import { keymap } from "prosemirror-keymap";
import { schema } from "prosemirror-schema-basic";
import { EditorState } from "prosemirror-state";
import { EditorView } from "prosemirror-view";
import { redo, undo, yCursorPlugin, ySyncPlugin, yUndoPlugin } from "y-prosemirror";

import { mayWrite, type User } from "./writer";

export function mount(element: HTMLElement, session: Session, name: string, user: User) {
  const document = openDocument(session, name);
  document.show("user", user);
  const view = new EditorView(element, {
    state: EditorState.create({
      schema,
      plugins: [
        ySyncPlugin(document.doc.getXmlFragment("prosemirror")),
        yCursorPlugin(document.provider.awareness),
        yUndoPlugin(),
        keymap({ "Mod-z": undo, "Mod-y": redo, "Mod-Shift-z": redo }),
        keymap(baseKeymap),
      ],
    }),
  });
  document.status.subscribe((status) => view.setProps({ editable: () => mayWrite(status) }));
  return document;
}
