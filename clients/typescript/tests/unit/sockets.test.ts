import { expect, test } from "vitest";
import { encoding } from "lib0";

import { readVarString, readVarUint, varUint } from "../../src/sockets.ts";

test.each([0, 1, 127, 128, 300, 2 ** 31, 2 ** 40 + 5])("%i is read and written as lib0 does it", (value) => {
  const encoder = encoding.createEncoder();
  encoding.writeVarUint(encoder, value);
  const bytes = encoding.toUint8Array(encoder);

  expect(readVarUint(bytes, 0)).toEqual([value, bytes.length]);
  expect(varUint(value)).toEqual([...bytes]);
});

test("text is read as lib0 writes it", () => {
  const encoder = encoding.createEncoder();
  encoding.writeVarString(encoder, "später 🐈");

  expect(readVarString(encoding.toUint8Array(encoder), 0)).toBe("später 🐈");
});
