/** Where things are. The page is served at `demo/` below the place where Roomkey is mounted. */

const page = new URL(location.href);

/** The place where Roomkey is mounted, with a slash at its end. */
export const root = new URL("../", page);

export const documentName = page.searchParams.get("document") || "demo/welcome";

/** Whoever the address of this page says we are. */
export const wantedUser = page.searchParams.get("user");

/** `path` below the root; every part of it is already encoded. */
export function api(path: string): string {
  return new URL(path, root).href;
}

/** The document in REST: one segment, its slashes encoded. */
export function documentPath(rest = ""): string {
  return `documents/${encodeURIComponent(documentName)}${rest}`;
}

/** Where this document can be seen as the interface answers it. */
export const rawDocument = api(documentPath());

/** The document's name as y-websocket appends it to the address of the sockets. */
export const roomName = documentName.split("/").map(encodeURIComponent).join("/");

export const sockets = new URL("yjs", root).href.replace(/^http/, "ws");

/** This page, for somebody else. */
export function pageFor(user: string): string {
  const other = new URL(page);
  other.search = new URLSearchParams({ document: documentName, user }).toString();
  return other.href;
}
