// What drives a provider: commands come as JSON lines on standard input, and whatever happens goes out as JSON lines.
import { createInterface } from "node:readline";
import WebSocket from "ws";
import * as Y from "yjs";

const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

// Providers complain on the console of what tests want to know.
console.warn = console.error = (...words) => say({ event: "warning", text: words.join(" ") });

/** `ws` as the page of a browser has it: with an `Origin`, if there is one. */
export const socketOf = (origin) =>
  class extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols ?? [], origin === undefined ? {} : { origin });
    }
  };

export const event = (name, more = {}) => say({ event: name, ...more });

/** Follow `doc` and `awareness`; `more` says what else there is to know, `commands` what else can be done. */
export function drive(doc, awareness, more, commands) {
  const text = doc.getText("content");
  let scheduled = false;
  const changed = () => {
    if (scheduled) return;
    scheduled = true;
    setImmediate(() => {
      scheduled = false;
      const users = [...awareness.getStates().values()].map((state) => state.user).filter(Boolean);
      say({ text: text.toString(), users: users.sort(), ...more() });
    });
  };
  const all = {
    insert: (index, words) => text.insert(index, words),
    append: (words) => text.insert(text.length, words),
    show: (user) => awareness.setLocalStateField("user", user),
    // y-protocols repeats what is shown every 15 seconds; without that, nothing is mended by waiting.
    sayOnce: () => clearInterval(awareness._checkInterval),
    ...commands,
  };
  doc.on("update", changed);
  awareness.on("change", changed);
  createInterface({ input: process.stdin })
    .on("line", (line) => {
      const [name, ...given] = JSON.parse(line);
      all[name](...given);
      changed();
    })
    .on("close", () => process.exit(0));
  return changed;
}

export const document = () => new Y.Doc();
