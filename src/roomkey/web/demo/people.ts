/** The sessions of this server: who is in the document, and the buttons that take access away and give it back. */

import { arrange, button, byId, element, setCutText, setText } from "./elements";
import { colourOf } from "./names";
import { json } from "./rest";
import type { Person } from "./room";
import type { Session } from "./session";

interface Page {
  sessions: Session[];
}

/** Longest list that is shown of one state. */
const SHOWN = 50;

/** More are counted. */
const AVATARS = 5;

type Command = "suspend" | "resume" | "invalidate";

const DONE: Readonly<Record<Command, string>> = {
  suspend: "is suspended",
  resume: "is resumed",
  invalidate: "is revoked",
};

/** In which list a session stands, and what can be done with it. */
interface Place {
  session: Session;
  badge: string;
  commands: Command[];
}

export class People {
  /** In the order in which they were first seen, which is the order in which they are shown. */
  private readonly rows = new Map<string, Row>();
  private readonly heading = byId("people");
  private readonly list = byId("sessions");
  private readonly elsewhere = byId<HTMLDetailsElement>("elsewhere");
  private sessions: Session[] = [];
  /** Who is in the list of those that matter. */
  private near = new Set<string>();
  /** Somebody did something with them here: they stay where they are. */
  private readonly touched = new Set<string>();
  /** Revoked here, and shown until nobody looks. */
  private readonly revoked = new Map<string, Session>();

  /** `attempt` runs what a button does, and says so when it fails. */
  constructor(private readonly attempt: (work: () => Promise<void>) => void) {}

  async refresh(): Promise<void> {
    const pages = ["active", "suspended"].map((state) =>
      json<Page>("GET", `sessions?${new URLSearchParams({ state, limit: String(SHOWN) })}`),
    );
    this.sessions = (await Promise.all(pages)).flatMap((page) => page.sessions);
  }

  /** Show `mine` first, then whoever is in the document or was shut out, then all others behind a fold. */
  draw(mine: Session, present: readonly Person[]): void {
    const isLookedAt = this.heading.parentElement!.matches(":hover, :focus-within");
    if (!isLookedAt) {
      this.revoked.clear();
    }
    const here = new Set(present.map((person) => person.session));
    const all = new Map([...this.revoked.values(), ...this.sessions].map((session) => [session.id, session]));
    all.delete(mine.id);
    const isNear = ({ id, state }: Session): boolean =>
      here.has(id) || state !== "active" || this.touched.has(id) || (isLookedAt && this.near.has(id));
    const places = [...all.values()].map((session) => placeOf(session, here.has(session.id)));
    const near = places.filter(({ session }) => isNear(session));
    this.near = new Set(near.map(({ session }) => session.id));
    this.keepingFocus(() => {
      this.forget(new Set([mine.id, ...all.keys()]));
      arrange(this.list, this.show([{ session: mine, badge: "you", commands: [] }, ...near]));
      const far = places.filter(({ session }) => !this.near.has(session.id));
      this.elsewhere.hidden = far.length === 0;
      setText(this.elsewhere.querySelector("summary")!, `Elsewhere (${far.length})`);
      arrange(this.elsewhere.querySelector("ul")!, this.show(far));
    });
    drawAvatars(present);
  }

  /** The rows of `places`, in the order in which they were first seen. */
  private show(places: readonly Place[]): HTMLElement[] {
    const shown = new Set(places.map((place) => this.rowOf(place.session).show(place)));
    return [...this.rows.values()].map(({ item }) => item).filter((item) => shown.has(item));
  }

  private rowOf({ id }: Session): Row {
    let row = this.rows.get(id);
    if (row === undefined) {
      row = new Row((command) => this.attempt(() => this.change(id, command)));
      this.rows.set(id, row);
    }
    return row;
  }

  private async change(id: string, command: Command): Promise<void> {
    const session = await json<Session>("PUT", `sessions/${id}/${command}`, { json: { reason: "from the demo" } });
    this.touched.add(id);
    if (command === "invalidate") {
      this.revoked.set(id, session);
    }
    setText(byId("done"), `${session.user_id} ${DONE[command]}.`);
    await this.refresh();
  }

  /** Whoever works with the keyboard is where they were: in the same row, if it is there. */
  private keepingFocus(work: () => void): void {
    const focused = document.activeElement;
    const row = [...this.rows.values()].find(({ item }) => item.contains(focused));
    work();
    if (row !== undefined && !row.item.contains(document.activeElement)) {
      if (!row.item.isConnected || !row.focus(focused)) {
        this.heading.focus();
      }
    }
  }

  private forget(known: ReadonlySet<string>): void {
    for (const id of this.rows.keys()) {
      if (!known.has(id)) {
        this.rows.delete(id);
        this.touched.delete(id);
      }
    }
  }
}

function placeOf(session: Session, isHere: boolean): Place {
  switch (session.state) {
    case "active":
      return { session, badge: isHere ? "here" : "not here", commands: ["suspend", "invalidate"] };
    case "suspended":
      return { session, badge: "suspended", commands: ["resume", "invalidate"] };
    default:
      return { session, badge: "revoked", commands: [] };
  }
}

/** One session in the list. It stays the same element, so that a button keeps its focus. */
class Row {
  private readonly dot = element("span", "dot");
  private readonly name = element("span", "name");
  private readonly badge = element("span", "badge");
  private readonly actions = element("span", "actions");
  readonly item = element("li", "row", this.dot, this.name, this.badge, this.actions);
  private readonly buttons: Record<Command, HTMLButtonElement>;

  constructor(press: (command: Command) => void) {
    this.item.tabIndex = -1;
    this.buttons = {
      suspend: button("Suspend", () => press("suspend")),
      resume: button("Resume", () => press("resume")),
      invalidate: button("Revoke", () => press("invalidate"), "danger"),
    };
  }

  show({ session, badge, commands }: Place): HTMLElement {
    this.dot.style.background = colourOf(session.user_id);
    this.badge.dataset["kind"] = badge;
    setCutText(this.name, session.user_id);
    setText(this.badge, badge);
    for (const command of commands) {
      const { textContent } = this.buttons[command];
      this.buttons[command].setAttribute("aria-label", `${textContent} ${session.user_id}`);
    }
    arrange(this.actions, commands.map((command) => this.buttons[command]));
    this.actions.hidden = commands.length === 0;
    return this.item;
  }

  /** Take the focus again: on what had it, or on what stands in its place. Whether that was possible. */
  focus(before: Element | null): boolean {
    const choices = [before, this.actions.firstElementChild, this.item];
    const choice = choices.find((each) => each !== null && this.item.contains(each)) as HTMLElement;
    choice.focus();
    return document.activeElement === choice;
  }
}

function drawAvatars(people: readonly Person[]): void {
  const names = [...new Set(people.map(({ name }) => name))].sort();
  const list = byId("avatars");
  if (list.dataset["names"] === names.join("\n")) {
    return;
  }
  list.dataset["names"] = names.join("\n");
  const shown = names.length > AVATARS ? names.slice(0, AVATARS - 1) : names;
  const marks = shown.map((name) => avatar(initial(name), name, colourOf(name)));
  if (names.length > shown.length) {
    const more = names.slice(shown.length);
    marks.push(avatar(`+${more.length}`, more.join(", "), "var(--more)"));
  }
  list.replaceChildren(...marks);
}

function avatar(text: string, name: string, colour: string): HTMLElement {
  const mark = element("li", "avatar");
  const letter = element("span", "", text);
  letter.ariaHidden = "true";
  mark.append(letter, element("span", "unseen", name));
  mark.style.background = colour;
  mark.title = name;
  return mark;
}

/** The first character as people see it, which may be several of a string's. */
function initial(name: string): string {
  const [first] = new Intl.Segmenter().segment(name);
  return (first?.segment ?? "?").toUpperCase();
}
