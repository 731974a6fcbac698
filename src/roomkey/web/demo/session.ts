/** The session of this window: begun when the page is first opened, kept over reloads, watched until it ends. */

import { Session as Client } from "@roomkey/client";

import { root, wantedUser } from "./address";
import { friendlyName } from "./names";
import { json, Refusal } from "./rest";

export type SessionState = "pending" | "active" | "suspended" | "expired" | "invalidated";

export interface Session {
  id: string;
  user_id: string;
  state: SessionState;
  created_at: string;
  expires_at: string;
  idle_expires_at: string | null;
}

interface Issued {
  session: Session;
  token: string;
}

/** sessionStorage belongs to one tab, so that each window is somebody else. */
const KEPT = `roomkey-demo:${root.pathname}`;

export class OwnSession {
  /** What keeps the document connected as this session. */
  client: Client;

  private constructor(
    public session: Session,
    token: string,
  ) {
    this.client = new Client({ url: root, token });
  }

  get token(): string {
    return this.client.token ?? "";
  }

  /** The session that this tab had before, if it still lives and is whom the address asks for; else a new one. */
  static async open(): Promise<OwnSession> {
    const kept = recall();
    if (kept !== null && (wantedUser === null || kept.session.user_id === wantedUser)) {
      const own = new OwnSession(kept.session, kept.token);
      await own.refresh();
      if (own.lives) {
        return own;
      }
    }
    const own = new OwnSession(...(await begin(wantedUser ?? friendlyName())));
    own.keep();
    return own;
  }

  /** A new session of the same user in place of this one. */
  async startAnew(): Promise<void> {
    const [session, token] = await begin(this.session.user_id);
    this.client.close();
    this.session = session;
    this.client = new Client({ url: root, token });
    this.keep();
  }

  get lives(): boolean {
    return this.session.state === "active" || this.session.state === "suspended";
  }

  /** The nearer of the two deadlines. */
  get deadline(): Date {
    const { expires_at, idle_expires_at } = this.session;
    const absolute = new Date(expires_at);
    const idle = idle_expires_at === null ? absolute : new Date(idle_expires_at);
    return idle < absolute ? idle : absolute;
  }

  /** Learn how the session is now. A server that cannot be reached changes nothing. */
  async refresh(): Promise<void> {
    const { id } = this.session;
    try {
      const found = await json<Session>("GET", `sessions/${id}`);
      if (id === this.session.id) {
        this.session = found;
      }
    } catch (error) {
      if (error instanceof Refusal && error.status === 404 && id === this.session.id) {
        this.session = { ...this.session, state: "invalidated" };
      }
    }
  }

  private keep(): void {
    sessionStorage.setItem(KEPT, JSON.stringify({ session: this.session, token: this.token }));
  }
}

function recall(): Issued | null {
  const text = sessionStorage.getItem(KEPT);
  return text === null ? null : (JSON.parse(text) as Issued);
}

async function begin(user: string): Promise<[Session, string]> {
  const issued = await json<Issued>("POST", "sessions", { json: { user_id: user, activate: true } });
  return [issued.session, issued.token];
}
