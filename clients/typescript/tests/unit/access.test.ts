import { expect, test } from "vitest";

import { accessTo } from "../../src/access.ts";

test.each([
  ["notes/**", "notes/a/b", true],
  ["notes/*", "notes/a", true],
  ["notes/*", "notes/a/b", false],
  ["notes/*/draft", "notes/a/draft", true],
  ["**", "anything/at\nall", true],
  ["a.b", "axb", false],
  ["a+(b)[c]|d^$-{1}\\", "a+(b)[c]|d^$-{1}\\", true],
  ["Notes", "notes", false],
  ["*", "🐈", true],
])("%j covers %j: %s", (pattern, document, isCovered) => {
  expect(accessTo(document, [{ documents: pattern, access: "write" }])).toBe(isCovered ? "write" : null);
});

test("the first grant that matches decides", () => {
  const grants = [
    { documents: "notes/secret", access: "read" },
    { documents: "notes/**", access: "admin" },
  ];

  expect(accessTo("notes/secret", grants)).toBe("read");
  expect(accessTo("notes/open", grants)).toBe("write");
  expect(accessTo("other", grants)).toBeNull();
  expect(accessTo("other", [...grants, { group: "team-7" }])).toBe("write");
  expect(accessTo("notes/secret", [...grants, { group: "team-7" }])).toBe("read");
});
