/** What the grants of a session allow in a document: the same rule as on the server. */

import type { Access } from "./situation.ts";

export interface Grant {
  readonly documents?: string;
  readonly access?: string;
  readonly group?: string;
}

/**
 * The first grant that matches decides; `null` is no access. `*` stays inside a segment, `**` does not. What a group has
 * is not known here: as if it could write, until the server says that it cannot.
 */
export function accessTo(document: string, grants: readonly Grant[]): Access | null {
  const grant = grants.find(({ documents }) => documents === undefined || expression(documents).test(document));
  return grant === undefined ? null : grant.access === "read" ? "read" : "write";
}

function expression(pattern: string): RegExp {
  const pieces = pattern.match(/\*+|[^*]+/g) ?? [];
  const source = pieces.map((piece) =>
    piece === "*" ? "[^/]*" : piece[0] === "*" ? "[^]*" : piece.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"),
  );
  return new RegExp(`^${source.join("")}$`, "u");
}
