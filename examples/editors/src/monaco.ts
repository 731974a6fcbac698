import "./monaco.css";

import type { Session } from "@roomkey/client";
import { openDocument } from "@roomkey/client/y-websocket";
import * as monaco from "monaco-editor/esm/vs/editor/editor.api.js";
import EditorWorker from "monaco-editor/esm/vs/editor/editor.worker.js?worker";
import { MonacoBinding } from "y-monaco";

import { mayWrite, type User } from "./writer";

self.MonacoEnvironment = { getWorker: () => new EditorWorker() };

export function mount(element: HTMLElement, session: Session, name: string, user: User) {
  const document = openDocument(session, name);
  document.show("user", user);
  const editor = monaco.editor.create(element, { language: "plaintext", automaticLayout: true });
  const model = editor.getModel()!;
  model.setEOL(monaco.editor.EndOfLineSequence.LF); // as in the document, on every system
  new MonacoBinding(document.doc.getText("content"), model, new Set([editor]), document.provider.awareness);
  document.status.subscribe((status) => editor.updateOptions({ readOnly: !mayWrite(status) }));
  return document;
}
