/** The messages of `/ws`, as far as this library sends and reads them; `spec/ws.json` has all of them. */

export interface Position {
  readonly epoch: string;
  readonly offset: number;
}

export interface SessionInfo {
  readonly session_id: string;
  readonly user_id: string;
}

/** What others sent: their own fields, and who they are. */
export type Relayed = { readonly document: string; readonly session_info: SessionInfo } & Readonly<Record<string, unknown>>;

export type RelayedEdit = Relayed & { readonly position: Position };

export type RelayedStatus = Relayed & { readonly status: string };

export interface Message {
  readonly id: string;
  readonly message_type: string;
  readonly payload: Readonly<Record<string, unknown>>;
}

export interface Subscribed {
  readonly document: string;
  readonly position: Position;
  readonly recovered: boolean;
  readonly publications: readonly { id: string; message_type: string; payload: RelayedEdit }[];
  readonly presence: readonly RelayedStatus[];
  readonly access: string;
}

export interface Failure {
  readonly code: string;
  readonly message: string;
  readonly details: Readonly<Record<string, unknown>> | null;
  readonly retry: boolean;
}

/** Unique within the session, whatever windows it has. `crypto.randomUUID` is missing on pages without TLS. */
export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
