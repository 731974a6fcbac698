/** Sessions and rooms of Roomkey. Documents of Yjs are in `@roomkey/client/y-websocket` and `/hocuspocus`. */

export type { Watchable, Signal } from "./cell.ts";
export type { Position, Relayed, RelayedEdit, RelayedStatus, SessionInfo } from "./messages.ts";
export { NotPublished, type Room, type RoomMessage, type Saved } from "./room.ts";
export { Rooms } from "./rooms.ts";
export { type Facts, type Grant, Refused, type RequestOptions, Session, type SessionOptions } from "./session.ts";
export type { Access } from "./situation.ts";
export { type State, type Status, type Then, type Verdict, verdictOf } from "./verdict.ts";
