/** What this window says about itself: its session, its connection, and whether everything is saved. */

import { byId, element, setCutText, setText } from "./elements";
import type { Room } from "./room";
import type { OwnSession } from "./session";

/** Something that stands between the user and the editor. */
interface Obstacle {
  text: string;
  /** `waiting` goes away by itself, `refused` may, `over` does not. */
  kind: "waiting" | "refused" | "over";
  /** What is said when it has gone by itself. */
  relief?: string;
}

const REMOVED: Readonly<Record<string, Obstacle>> = {
  session_invalidated: { kind: "over", text: "This session was revoked." },
  forbidden: { kind: "refused", text: "This session may not open this document." },
  disconnected: { kind: "over", text: "You were removed from this document. Load the page again to come back." },
};

const NOT_UNDERSTOOD: Obstacle = {
  kind: "refused",
  text: "The server did not understand this editor and closed the connection.",
};

const CONNECTED_AGAIN = "Connected again.";

/** How long it is said that the connection is back. */
const RELIEF_MS = 4000;

/** Why the text cannot be changed now, or why changes stay in this window; `null` when all is well. */
export function obstacle({ status, arrived, delayed }: Room): Obstacle | null {
  switch (status.state) {
    case "suspended":
      return { kind: "refused", text: "This session is suspended. The text can be read, and written again when it is resumed." };
    case "expired":
      return { kind: "over", text: "The time of this session is over." };
    case "removed":
      return REMOVED[status.code] ?? NOT_UNDERSTOOD;
    case "readonly":
      return { kind: "refused", text: "Read only: this session may read this document, but not write to it." };
    case "offline":
      return navigator.onLine ? APART : OFFLINE;
    case "connecting":
      return arrived ? APART : null;
    case "active":
      return delayed ? LATER : null;
  }
}

const APART: Obstacle = {
  kind: "waiting",
  text: "Not connected. You can go on writing; it is sent when the connection is back.",
};
const OFFLINE: Obstacle = {
  kind: "waiting",
  text: "You are offline. You can go on writing; it is sent when you are online again.",
};
const LATER: Obstacle = {
  kind: "waiting",
  text: "Changes reach others later. You can go on writing.",
  relief: "Changes reach everyone again.",
};

export function mayWrite(hindrance: Obstacle | null): boolean {
  return hindrance === null || hindrance.kind === "waiting";
}

/** Says what stands in the way, and for a moment that it is gone if it went by itself. */
export class Banner {
  private readonly banner = byId("banner");
  private relievedUntil = 0;
  private relief = CONNECTED_AGAIN;

  draw(hindrance: Obstacle | null, now: Date): void {
    if (hindrance === null && this.banner.dataset["kind"] === "waiting") {
      this.relievedUntil = now.getTime() + RELIEF_MS;
    }
    if (hindrance !== null) {
      this.relief = hindrance.relief ?? CONNECTED_AGAIN;
      this.show(hindrance.kind, hindrance.text);
    } else if (now.getTime() < this.relievedUntil) {
      this.show("relief", this.relief);
    } else {
      this.show("", "");
    }
  }

  private show(kind: Obstacle["kind"] | "relief" | "", text: string): void {
    // What takes the editor away is said at once, what does not can wait until a screen reader has finished.
    this.banner.role = kind === "refused" || kind === "over" ? "alert" : "status";
    this.banner.dataset["kind"] = kind;
    this.banner.hidden = kind === "";
    setText(byId("banner-text"), text);
    byId("start-anew").hidden = kind !== "over";
  }
}

export function drawSaved(room: Room): void {
  const saved = byId("saved");
  const [kind, text] = saving(room);
  saved.dataset["kind"] = kind;
  setText(saved, text);
}

function saving({ status, saved }: Room): [kind: string, text: string] {
  const { state } = status;
  if (saved.state === "saving") {
    return state === "active" ? ["saving", "Saving…"] : ["unsaved", "Not saved yet"];
  }
  switch (state) {
    case "active":
      return ["saved", "All saved"];
    case "readonly":
      return ["reading", "Read only"];
    case "connecting":
    case "offline":
      return ["saving", "Connecting…"];
    default:
      return ["apart", "Not connected"];
  }
}

export function drawFacts(own: OwnSession, room: Room, now: Date): void {
  const { session } = own;
  fact("User", session.user_id);
  fact("Session", session.id, "code");
  fact("State", session.state, `state ${session.state}`);
  fact("Ends in", own.lives ? remaining(own.deadline, now) : "—", "figures");
  const connection = CONNECTIONS[room.status.state] ?? "disconnected";
  fact("Connection", connection, `state ${connection}`);
  fact("Access", session.state === "active" ? access(room) : "none");
}

const CONNECTIONS: Readonly<Record<string, string>> = {
  active: "connected",
  readonly: "connected",
  connecting: "connecting",
  offline: "connecting",
};

function access({ status, arrived }: Room): string {
  if (status.state === "readonly") {
    return "read only";
  }
  return arrived ? "read and write" : "—";
}

/** Time to a deadline as hours, minutes and seconds. */
function remaining(deadline: Date, now: Date): string {
  const seconds = Math.max(0, Math.floor((deadline.getTime() - now.getTime()) / 1000));
  const pair = (value: number): string => String(Math.floor(value)).padStart(2, "0");
  const days = seconds >= 86_400 ? `${Math.floor(seconds / 86_400)} d ` : "";
  return `${days}${pair((seconds % 86_400) / 3600)}:${pair((seconds % 3600) / 60)}:${pair(seconds % 60)}`;
}

const facts = new Map<string, HTMLElement>();

function fact(term: string, value: string, look = ""): void {
  let description = facts.get(term);
  if (description === undefined) {
    description = element("dd");
    facts.set(term, description);
    byId("facts").append(element("dt", "", term), description);
  }
  description.className = `cut ${look}`;
  setCutText(description, value);
}
