/** The buttons that undo and redo, and the notice of a restored version, which the one who restored it can undo. */

import { byId, element, timeOf } from "./elements";
import type { Editor } from "./editor";
import type { Version } from "./versions";

export class Steps {
  private readonly notice = byId("restored");
  /** What undoes the restored version, if that was done here. */
  private restoring: unknown = null;

  constructor(private readonly editor: () => Editor) {
    byId("undo").addEventListener("click", () => this.editor().undo());
    byId("redo").addEventListener("click", () => this.editor().redo());
    byId("undo-restore").addEventListener("click", () => this.undoRestore());
    byId("dismiss").addEventListener("click", () => this.dismiss());
  }

  draw(): void {
    const editor = this.editor();
    if (this.restoring !== null && !editor.hasStep(this.restoring)) {
      this.forget();
    }
    // They stay where the focus is, whatever can be done.
    byId("undo").ariaDisabled = String(!editor.canUndo);
    byId("redo").ariaDisabled = String(!editor.canRedo);
    byId("undo-restore").hidden = !this.canUndoRestore;
  }

  /** Make the changes that restore a version. */
  async restore(changes: Uint8Array): Promise<void> {
    const before = this.editor().lastStep;
    await this.editor().change(changes);
    this.restoring = this.editor().lastStep === before ? null : this.editor().lastStep;
  }

  /** Say who restored what; `mine` is the session of this window. */
  tell(title: string, before: Version, mine: string): void {
    const isMine = before.author.session_id === mine;
    if (!isMine) {
      this.restoring = null;
    }
    const who = isMine ? "You" : (before.author.user_id ?? before.author.actor);
    byId("restored-text").replaceChildren(element("b", "", who), ` restored ${title} at `, timeOf(before.at), ".");
    this.notice.hidden = false;
    this.draw();
  }

  /** What can be undone is forgotten: there is another document, or another session. */
  forget(): void {
    this.restoring = null;
    this.notice.hidden = true;
  }

  private get canUndoRestore(): boolean {
    return this.restoring !== null && this.editor().canUndo && this.editor().lastStep === this.restoring;
  }

  private undoRestore(): void {
    if (this.canUndoRestore) {
      this.editor().undo();
    }
    this.dismiss();
  }

  private dismiss(): void {
    this.forget();
    this.editor().focus();
  }
}
