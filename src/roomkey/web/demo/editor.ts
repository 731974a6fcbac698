/** The editor: CodeMirror on a text that several people write, and the steps of this user, which can be undone. */

import { defaultKeymap } from "@codemirror/commands";
import { Compartment, EditorState, type Extension } from "@codemirror/state";
import { drawSelection, EditorView, highlightSpecialChars, keymap, placeholder } from "@codemirror/view";
import { yCollab } from "y-codemirror.next";
import * as Y from "yjs";

import { markdown } from "./markdown";
import type { Room } from "./room";

/** The origin of changes that somebody else prepared, and this user asked for. */
const ON_BEHALF = "on behalf of the user";

export class Editor {
  private readonly writable = new Compartment();
  private readonly steps: Y.UndoManager;
  private readonly view: EditorView;
  private reading = false;

  /** `stepped` is called when there is another step to undo or to redo, or one less. */
  constructor(
    parent: HTMLElement,
    private readonly room: Room,
    stepped: () => void,
  ) {
    // It tracks no changes of others: they have another origin.
    this.steps = new Y.UndoManager(room.text, { trackedOrigins: new Set([ON_BEHALF]) });
    this.steps.on("stack-item-added", stepped);
    this.steps.on("stack-item-popped", stepped);
    this.view = new EditorView({
      parent,
      state: EditorState.create({
        doc: room.text.toString(),
        extensions: [
          // Tab is left to the browser: it leads out of the editor.
          keymap.of([
            { key: "Mod-z", run: () => this.undo(), shift: () => this.redo() },
            { key: "Mod-y", run: () => this.redo() },
            ...defaultKeymap,
          ]),
          drawSelection(),
          highlightSpecialChars(),
          EditorView.lineWrapping,
          EditorView.contentAttributes.of({ "aria-label": "The document", spellcheck: "true", tabindex: "0" }),
          markdown,
          yCollab(room.text, room.awareness, { undoManager: this.steps }),
          this.writable.of(permission(false)),
        ],
      }),
    });
  }

  get canUndo(): boolean {
    return !this.reading && this.steps.canUndo();
  }

  get canRedo(): boolean {
    return !this.reading && this.steps.canRedo();
  }

  /** What would be undone next: the same object as long as it is the same step. */
  get lastStep(): unknown {
    return this.steps.undoStack.at(-1) ?? null;
  }

  /** Whether `step`, a `lastStep` of some time ago, can still be undone. */
  hasStep(step: unknown): boolean {
    return (this.steps.undoStack as unknown[]).includes(step);
  }

  undo(): true {
    if (this.canUndo) {
      this.steps.undo();
    }
    return true;
  }

  redo(): true {
    if (this.canRedo) {
      this.steps.redo();
    }
    return true;
  }

  /** Make changes that the server prepared: as one step of this user, who alone can undo it. */
  async change(update: Uint8Array): Promise<void> {
    await this.room.hasWhatPrecedes(update);
    this.steps.stopCapturing();
    Y.applyUpdate(this.room.doc, update, ON_BEHALF);
    this.steps.stopCapturing();
  }

  setReadOnly(reading: boolean): void {
    if (reading !== this.reading) {
      this.reading = reading;
      this.view.dispatch({ effects: this.writable.reconfigure(permission(reading)) });
    }
  }

  focus(): void {
    this.view.focus();
  }

  close(): void {
    this.view.destroy();
    this.steps.destroy();
  }
}

const INVITATION = "Write something. Everyone in this document sees it as you type.";

function permission(reading: boolean): Extension {
  return [
    EditorState.readOnly.of(reading),
    EditorView.editable.of(!reading),
    EditorView.contentAttributes.of({ "aria-readonly": String(reading) }),
    placeholder(reading ? "Nothing is written here." : INVITATION),
  ];
}
