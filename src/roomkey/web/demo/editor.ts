/** The editor: CodeMirror on a text that several people write. */

import { defaultKeymap } from "@codemirror/commands";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, highlightSpecialChars, keymap, placeholder } from "@codemirror/view";
import { yCollab, yUndoManagerKeymap } from "y-codemirror.next";

import { markdown } from "./markdown";
import type { Room } from "./room";

export class Editor {
  private readonly writable = new Compartment();
  private readonly view: EditorView;
  private reading = false;

  constructor(parent: HTMLElement, room: Room) {
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        doc: room.text.toString(),
        extensions: [
          // Tab is left to the browser: it leads out of the editor.
          keymap.of([...yUndoManagerKeymap, ...defaultKeymap]),
          drawSelection(),
          highlightSpecialChars(),
          EditorView.lineWrapping,
          placeholder("Write something. Everyone in this document sees it as you type."),
          EditorView.contentAttributes.of({ "aria-label": "The document", spellcheck: "true", tabindex: "0" }),
          markdown,
          yCollab(room.text, room.provider.awareness),
          this.writable.of(permission(false)),
        ],
      }),
    });
  }

  setReadOnly(reading: boolean): void {
    if (reading !== this.reading) {
      this.reading = reading;
      this.view.dispatch({ effects: this.writable.reconfigure(permission(reading)) });
    }
  }

  close(): void {
    this.view.destroy();
  }
}

function permission(reading: boolean): Extension {
  return [EditorState.readOnly.of(reading), EditorView.editable.of(!reading)];
}
