/** The versions of the document: kept under a label, looked at, and restored. */

import { documentPath } from "./address";
import { arrange, byId, element, setCutText, setText, timeOf } from "./elements";
import { json, request } from "./rest";

export interface Version {
  number: number;
  at: string;
  label: string | null;
  author: { actor: string; session_id: string | null; user_id: string | null };
  /** The number of the version that its author restored then. It is what was there before. */
  restored: number | null;
}

interface Page {
  versions: Version[];
}

interface Events {
  /** Runs what a button does, and says so when it fails. */
  attempt: (work: () => Promise<void>) => void;
  /** Make the changes that restore a version. */
  restore: (changes: Uint8Array) => Promise<void>;
  /** Somebody has restored the version that is called `title`; `before` is what was there until then. */
  restored: (title: string, before: Version) => void;
  /** The user goes back to the text. */
  left: () => void;
}

export class Versions {
  private readonly list = byId<HTMLOListElement>("versions");
  private readonly preview = byId("preview");
  private readonly writing = byId("writing");
  private readonly rows = new Map<number, Row>();
  /** `null` until they are known. The newest come first. */
  private versions: Version[] | null = null;
  private chosen: Version | null = null;

  /** `token` is that of the session in whose name versions are kept. */
  constructor(
    private readonly token: () => string,
    private readonly events: Events,
  ) {
    byId<HTMLFormElement>("save-version").addEventListener("submit", (event) => {
      event.preventDefault();
      events.attempt(() => this.save());
    });
    byId("restore").addEventListener("click", () => events.attempt(() => this.restore()));
    byId("leave-preview").addEventListener("click", () => this.leave());
    addEventListener("keydown", (event) => {
      if (event.key === "Escape" && this.chosen !== null) {
        this.leave();
      }
    });
  }

  /** Read the list again. There is none before the document is stored for the first time. */
  async refresh(): Promise<void> {
    const { versions } = await json<Page>("GET", documentPath("/versions"), { token: this.token() });
    const known = this.versions?.[0]?.number ?? 0;
    const isFirst = this.versions === null;
    this.versions = versions;
    this.draw();
    const latest = versions.find(({ restored }) => restored !== null);
    if (latest !== undefined && latest.number > known && !isFirst) {
      this.events.restored(this.titleOf(latest.restored!), latest);
    }
  }

  /** The document is new, or another one: it has no versions. What is restored from now on is news. */
  beginAnew(): void {
    this.versions = [];
    this.draw();
  }

  setReadOnly(reading: boolean): void {
    byId<HTMLFieldSetElement>("keeping").disabled = reading;
    byId<HTMLButtonElement>("restore").disabled = reading;
  }

  private async save(): Promise<void> {
    const input = byId<HTMLInputElement>("label");
    const label = input.value.trim();
    await request("POST", documentPath("/versions"), { token: this.token(), json: label ? { label } : {} });
    input.value = "";
    await this.refresh();
  }

  private async show(version: Version): Promise<void> {
    const path = documentPath(`/versions/${version.number}?root=content`);
    const answer = await request("GET", path, { token: this.token(), accept: "text/plain" });
    setText(byId("preview-text"), await answer.text());
    const name = element("b", "cut");
    setCutText(name, this.nameOf(version));
    byId("preview-title").replaceChildren(name, element("small", "", ...describe(version)));
    this.chosen = version;
    this.writing.hidden = true;
    this.preview.hidden = false;
    this.draw();
    byId("leave-preview").focus();
  }

  private async restore(): Promise<void> {
    if (this.chosen !== null) {
      const path = documentPath(`/versions/${this.chosen.number}/restore?by=caller`);
      const answer = await request("POST", path, { token: this.token(), accept: "application/x-yjs-update" });
      await this.events.restore(new Uint8Array(await answer.arrayBuffer()));
      this.leave();
      await this.refresh();
    }
  }

  private leave(): void {
    this.chosen = null;
    this.writing.hidden = false;
    this.preview.hidden = true;
    this.draw();
    this.events.left();
  }

  private draw(): void {
    const versions = this.versions ?? [];
    byId("no-versions").hidden = versions.length > 0;
    for (const number of this.rows.keys()) {
      if (!versions.some((version) => version.number === number)) {
        this.rows.delete(number);
      }
    }
    const chosen = this.chosen?.number;
    const show = (version: Version): HTMLElement =>
      this.rowOf(version).show(this.nameOf(version), version.number === chosen);
    arrange(this.list, versions.map(show));
  }

  private rowOf(version: Version): Row {
    let row = this.rows.get(version.number);
    if (row === undefined) {
      row = new Row(version, () => this.events.attempt(() => this.show(version)));
      this.rows.set(version.number, row);
    }
    return row;
  }

  private nameOf(version: Version): string {
    return version.restored === null
      ? titleOf(version)
      : `Before ${authorOf(version)} restored ${this.titleOf(version.restored)}`;
  }

  private titleOf(number: number): string {
    const version = this.versions?.find((each) => each.number === number);
    return version?.label ? `“${version.label}”` : `version ${number}`;
  }
}

/** One version in the list. It stays the same element, so that it keeps its focus. */
class Row {
  private readonly name = element("b", "cut");
  private readonly look: HTMLButtonElement;
  private readonly item: HTMLElement;

  constructor(version: Version, press: () => void) {
    this.look = element("button", "version", this.name, element("small", "", ...describe(version)));
    this.look.type = "button";
    this.look.addEventListener("click", press);
    this.item = element("li", "", this.look);
  }

  show(name: string, isChosen: boolean): HTMLElement {
    setCutText(this.name, name);
    this.look.ariaPressed = String(isChosen);
    return this.item;
  }
}

function titleOf(version: Version): string {
  return version.label || `Version ${version.number}`;
}

function authorOf({ author }: Version): string {
  return author.user_id ?? author.actor;
}

function describe(version: Version): (Node | string)[] {
  return [timeOf(version.at), version.restored === null ? ` by ${authorOf(version)}` : ` as version ${version.number}`];
}
