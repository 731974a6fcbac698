/** The sessions of this server: who is in the document, and the buttons that take access away and give it back. */

import { arrange, button, byId, element, setText } from "./elements";
import { colourOf } from "./names";
import { json } from "./rest";
import type { Person } from "./room";
import type { Session } from "./session";

interface Page {
  sessions: Session[];
}

/** Longest list that is shown of one state. */
const SHOWN = 50;

type Command = "suspend" | "resume" | "invalidate";

export class People {
  private readonly rows = new Map<string, Row>();
  private readonly list = byId("sessions");
  private readonly elsewhere = byId<HTMLDetailsElement>("elsewhere");
  private sessions: Session[] = [];

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
    const here = new Set(present.map((person) => person.session));
    const others = this.sessions.filter(({ id }) => id !== mine.id);
    const near = others.filter(({ id, state }) => here.has(id) || state === "suspended");
    const far = others.filter((session) => !near.includes(session));
    arrange(this.list, [this.mine(mine), ...near.map((session) => this.row(session, here.has(session.id)))]);
    this.elsewhere.hidden = far.length === 0;
    setText(this.elsewhere.querySelector("summary")!, `Elsewhere (${far.length})`);
    arrange(this.elsewhere.querySelector("ul")!, far.map((session) => this.row(session, false)));
    this.forget(new Set([mine.id, ...this.sessions.map(({ id }) => id)]));
    drawAvatars(present);
  }

  private mine(session: Session): HTMLElement {
    return this.rowOf(session).show(session, "you", []);
  }

  private row(session: Session, here: boolean): HTMLElement {
    const suspended = session.state === "suspended";
    const where = suspended ? "suspended" : here ? "here" : "not here";
    return this.rowOf(session).show(session, where, [suspended ? "resume" : "suspend", "invalidate"]);
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
    await json("PUT", `sessions/${id}/${command}`, { json: { reason: "from the demo" } });
    await this.refresh();
  }

  private forget(known: ReadonlySet<string>): void {
    for (const id of this.rows.keys()) {
      if (!known.has(id)) {
        this.rows.delete(id);
      }
    }
  }
}

/** One session in the list. It stays the same element, so that a button keeps its focus. */
class Row {
  private readonly dot = element("span", "dot");
  private readonly name = element("span", "name");
  private readonly badge = element("span", "badge");
  private readonly actions = element("span", "actions");
  private readonly item = element("li", "row", this.dot, this.name, this.badge, this.actions);
  private readonly buttons: Record<Command, HTMLButtonElement>;

  constructor(press: (command: Command) => void) {
    this.buttons = {
      suspend: button("Suspend", () => press("suspend")),
      resume: button("Resume", () => press("resume")),
      invalidate: button("Revoke", () => press("invalidate"), "danger"),
    };
  }

  show(session: Session, badge: string, commands: Command[]): HTMLElement {
    this.dot.style.background = colourOf(session.user_id);
    this.item.title = `Session ${session.id}`;
    this.badge.dataset["kind"] = badge;
    setText(this.name, session.user_id);
    setText(this.badge, badge);
    for (const command of commands) {
      const { textContent } = this.buttons[command];
      this.buttons[command].setAttribute("aria-label", `${textContent} ${session.user_id}`);
    }
    arrange(this.actions, commands.map((command) => this.buttons[command]));
    return this.item;
  }
}

function drawAvatars(people: readonly Person[]): void {
  const names = [...new Set(people.map(({ name }) => name))];
  const marks = names.map((name) => {
    const mark = element("li", "avatar", name.slice(0, 1).toUpperCase());
    mark.style.background = colourOf(name);
    mark.title = name;
    mark.setAttribute("aria-label", name);
    return mark;
  });
  const list = byId("avatars");
  if ([...list.children].map((mark) => mark.ariaLabel).join() !== names.join()) {
    list.replaceChildren(...marks);
  }
}
