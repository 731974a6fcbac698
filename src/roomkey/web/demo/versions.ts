/** The versions of the document: kept under a label, looked at, and restored. */

import { documentPath } from "./address";
import { byId, element, setText, when } from "./elements";
import { json, request } from "./rest";

interface Version {
  number: number;
  at: string;
  label: string | null;
  author: { actor: string; session_id: string | null; user_id: string | null };
}

interface Page {
  versions: Version[];
}

export class Versions {
  private readonly list = byId<HTMLOListElement>("versions");
  private readonly preview = byId("preview");
  private readonly editor = byId("editor");
  private versions: Version[] = [];
  private chosen: Version | null = null;

  /** `token` is that of the session in whose name versions are kept; `attempt` says so when something fails. */
  constructor(
    private readonly token: () => string,
    private readonly attempt: (work: () => Promise<void>) => void,
  ) {
    byId<HTMLFormElement>("save-version").addEventListener("submit", (event) => {
      event.preventDefault();
      attempt(() => this.save());
    });
    byId("restore").addEventListener("click", () => attempt(() => this.restore()));
    byId("leave-preview").addEventListener("click", () => this.leave());
  }

  /** Read the list again. There is none before the document is stored for the first time. */
  async refresh(): Promise<void> {
    const { versions } = await json<Page>("GET", documentPath("/versions"), { token: this.token() });
    if (JSON.stringify(versions) !== JSON.stringify(this.versions)) {
      this.versions = versions;
      this.draw();
    }
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
    setText(byId("preview-title"), `${titleOf(version)}, ${describe(version)}`);
    this.chosen = version;
    this.editor.hidden = true;
    this.preview.hidden = false;
    this.draw();
    byId("leave-preview").focus();
  }

  private async restore(): Promise<void> {
    if (this.chosen !== null) {
      const path = documentPath(`/versions/${this.chosen.number}/restore`);
      await request("POST", path, { token: this.token() });
      this.leave();
      await this.refresh();
    }
  }

  private leave(): void {
    this.chosen = null;
    this.editor.hidden = false;
    this.preview.hidden = true;
    this.draw();
    this.editor.querySelector<HTMLElement>("[tabindex]")?.focus();
  }

  private draw(): void {
    const newestFirst = this.versions.toSorted((one, other) => other.number - one.number);
    byId("no-versions").hidden = newestFirst.length > 0;
    this.list.replaceChildren(...newestFirst.map((version) => this.row(version)));
  }

  private row(version: Version): HTMLElement {
    const look = element("button", "version", element("b", "", titleOf(version)), element("small", "", describe(version)));
    look.type = "button";
    look.addEventListener("click", () => this.attempt(() => this.show(version)));
    look.ariaPressed = String(version.number === this.chosen?.number);
    return element("li", "", look);
  }
}

function titleOf(version: Version): string {
  return version.label || `Version ${version.number}`;
}

function describe(version: Version): string {
  return `${when(version.at)} by ${version.author.user_id ?? version.author.actor}`;
}
