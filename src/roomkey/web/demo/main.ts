/** Puts the page together: a session, the document that it opens, and the panel beside it. */

import * as Y from "yjs";

import { api, documentName, pageFor, rawDocument } from "./address";
import { Editor } from "./editor";
import { byId, setCutText, setText } from "./elements";
import { friendlyName } from "./names";
import { People } from "./people";
import { Refusal } from "./rest";
import { Room } from "./room";
import { OwnSession } from "./session";
import { Banner, drawFacts, drawSaved, mayWrite, obstacle } from "./status";
import { Steps } from "./steps";
import { Versions } from "./versions";

const WATCH_EVERY_MS = 2000;

/** With these reasons the server says that our document is no more, or another one: what we have must not be merged. */
const GONE: ReadonlySet<string> = new Set(["document_deleted", "lineage_mismatch", "queue_full"]);

class Page {
  private readonly people = new People((work) => this.attempt(work));
  private readonly steps = new Steps(() => this.editor);
  private readonly versions = new Versions(() => this.own.token, {
    attempt: (work) => this.attempt(work),
    restore: (changes) => this.steps.restore(changes),
    restored: (title, before) => this.steps.tell(title, before, this.own.session.id),
    left: () => this.editor.focus(),
  });
  private readonly banner = new Banner();
  private room: Room;
  /** How the document was when it last changed. */
  private state = "";
  private editor: Editor;

  constructor(private readonly own: OwnSession) {
    [this.room, this.editor] = this.open(new Y.Doc());
    byId("start-anew").addEventListener("click", () => this.attempt(() => this.startAnew()));
    byId("another").addEventListener("pointerdown", () => this.nameAnother());
    byId("another").addEventListener("focus", () => this.nameAnother());
    this.nameAnother();
    this.draw();
    setInterval(() => this.draw(), 1000);
    void this.keepWatching();
  }

  private open(doc: Y.Doc): [Room, Editor] {
    const room = new Room(doc, this.own.client, this.own.session, {
      changed: () => this.onChanged(room),
      joined: () => void this.watch(),
    });
    return [room, new Editor(byId("editor"), room, () => this.steps.draw())];
  }

  /** Open the document again, with `doc` as what is known of it. */
  private reopen(doc: Y.Doc): void {
    this.editor.close();
    this.room.leave();
    [this.room, this.editor] = this.open(doc);
    this.steps.forget();
    this.draw();
  }

  /** What was written meanwhile goes along; the new session writes under a client id of its own. */
  private async startAnew(): Promise<void> {
    await this.own.startAnew();
    const { doc } = this.room;
    const copy = new Y.Doc();
    Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc));
    this.reopen(copy);
  }

  private onChanged(room: Room): void {
    const { status } = room;
    if (room !== this.room) {
      return; // it was left
    }
    if (status.state === "removed" && GONE.has(status.code)) {
      this.reopen(new Y.Doc());
      this.versions.beginAnew();
      notify("The document was deleted. This is a new one.");
    } else if (status.state !== this.state) {
      void this.watch();
    }
    this.state = status.state;
    this.draw();
  }

  private async keepWatching(): Promise<never> {
    for (;;) {
      await this.watch();
      await new Promise((resolve) => setTimeout(resolve, WATCH_EVERY_MS));
    }
  }

  /** Look at what changes without us: our session, the others, the versions. */
  private async watch(): Promise<void> {
    await this.own.refresh();
    try {
      await this.people.refresh();
      if (this.own.session.state === "active" && this.room.stored) {
        await this.versions.refresh();
      }
    } catch (error) {
      if (!(error instanceof Refusal)) {
        throw error;
      }
    }
    this.draw();
  }

  private draw(): void {
    const { own, room } = this;
    const now = new Date();
    const hindrance = obstacle(room);
    this.editor.setReadOnly(!mayWrite(hindrance));
    this.versions.setReadOnly(!room.stored || !mayWrite(hindrance));
    this.steps.draw();
    this.banner.draw(hindrance, now);
    if (room.isNew) {
      this.versions.beginAnew();
    }
    drawSaved(room);
    drawFacts(own, room, now);
    this.people.draw(own.session, room.people);
  }

  private nameAnother(): void {
    const taken = new Set(this.room.people.map(({ name }) => name));
    byId<HTMLAnchorElement>("another").href = pageFor(friendlyName(taken.add(this.own.session.user_id)));
  }

  /** Do what a button asks for, and say so if it fails. */
  private attempt(work: () => Promise<void>): void {
    notify("");
    work()
      .catch((error: unknown) => {
        if (!(error instanceof Refusal)) {
          throw error;
        }
        notify(error.message);
      })
      .finally(() => this.draw());
  }
}

/** Say something above the text, until the next button is pressed; nothing takes it away. */
function notify(text: string): void {
  setText(byId("notice"), text);
  byId("notice").hidden = text === "";
}

setCutText(byId("document"), documentName);
byId<HTMLAnchorElement>("raw").href = rawDocument;
byId<HTMLAnchorElement>("interface").href = api("docs");
document.title = `${documentName} · Roomkey demo`;
try {
  new Page(await OwnSession.open());
} catch (error) {
  notify(error instanceof Error ? error.message : String(error));
}
