/** One document in this window: what is in it, who is in it, and what of it has been saved. */

import type { Saved, Session as Client, Status } from "@roomkey/client";
import { openDocument, type OpenDocument } from "@roomkey/client/y-websocket";
import type { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";

import { documentName } from "./address";
import { colourOf } from "./names";
import { Refusal } from "./rest";

/** How long the changes may take under way on which a change of the server builds. */
const UNDER_WAY_MS = 5000;

/** What others see of somebody. `session` is missing in editors that are not this page. */
export interface Person {
  name: string;
  color: string;
  colorLight: string;
  session?: string;
}

interface Events {
  /** Something that `Room` shows is different now. */
  changed: () => void;
  /** Somebody came into the document. */
  joined: () => void;
}

export class Room {
  readonly text: Y.Text;
  /** Whether the document has arrived at least once. */
  arrived = false;
  private readonly opened: OpenDocument<WebsocketProvider>;

  constructor(
    readonly doc: Y.Doc,
    client: Client,
    session: { id: string; user_id: string },
    private readonly events: Events,
  ) {
    this.text = doc.getText("content");
    this.opened = openDocument(client, documentName, doc);
    const color = colourOf(session.user_id);
    const me: Person = { name: session.user_id, color, colorLight: `${color}40`, session: session.id };
    this.opened.show("user", me);
    this.listen();
  }

  get awareness(): WebsocketProvider["awareness"] {
    return this.opened.provider.awareness;
  }

  get status(): Status {
    return this.opened.status.value;
  }

  get saved(): Saved {
    return this.opened.saved.value;
  }

  /** Whether the server said that what is written here reaches others later. */
  get delayed(): boolean {
    return this.opened.delayed.value;
  }

  /** Everyone in the document whose name is known, this window included. */
  get people(): Person[] {
    const states = [...this.awareness.getStates().values()];
    return states.flatMap((state) => (state["user"] === undefined ? [] : [state["user"] as Person]));
  }

  /** Whether the server has stored something of the document, so that it can be asked about it. */
  get stored(): boolean {
    return this.arrived && this.saved.state === "saved" && this.doc.store.clients.size > 0;
  }

  /** Whether nobody has ever written anything. */
  get isNew(): boolean {
    return this.arrived && this.doc.store.clients.size === 0;
  }

  /** Return when everything is here that `update` builds on: it may come by another way than the changes before it. */
  async hasWhatPrecedes(update: Uint8Array): Promise<void> {
    const giveUpAt = Date.now() + UNDER_WAY_MS;
    while (!builds(this.doc, update)) {
      if (Date.now() > giveUpAt) {
        throw new Refusal(0, "Changes of others are still under way. Try again in a moment.");
      }
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  leave(): void {
    this.opened.close();
  }

  private listen(): void {
    const { opened, events } = this;
    // Not from within what is just changing, and once for all that changes together.
    let isScheduled = false;
    const changed = (): void => {
      if (!isScheduled) {
        isScheduled = true;
        queueMicrotask(() => {
          isScheduled = false;
          events.changed();
        });
      }
    };
    opened.status.subscribe(({ state }) => {
      this.arrived ||= state === "active" || state === "readonly";
      changed();
    });
    opened.saved.subscribe(changed);
    opened.delayed.subscribe(changed);
    this.awareness.on("change", ({ added }: { added: number[] }) => {
      changed();
      if (added.length > 0) {
        events.joined();
      }
    });
  }
}

function builds(doc: Y.Doc, update: Uint8Array): boolean {
  const copy = new Y.Doc();
  Y.applyUpdate(copy, Y.encodeStateAsUpdate(doc));
  Y.applyUpdate(copy, update);
  const { pendingStructs, pendingDs } = copy.store;
  copy.destroy();
  return pendingStructs === null && pendingDs === null;
}
