// A program that uses the packed library, steered by lines on standard input; whatever happens goes out as JSON lines:
// node consumer.mjs URL TOKEN KIND DOCUMENT, where KIND is rooms, y-websocket or hocuspocus.
import { createInterface } from "node:readline";
import { Rooms, Session } from "@roomkey/client";
import WebSocket from "ws";

const [url, token, kind, name] = process.argv.slice(2);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");

// What a process sees that slept: it did not run, and the clock has moved.
let slept = 0;
let wokeAt = 0;
const awake = () => (performance.now() - wokeAt) / 1000;
const now = Date.now;
Date.now = () => now() + slept;

class PageSocket extends WebSocket {
  constructor(address, protocols) {
    super(address, protocols ?? [], { origin: url });
  }
}

let answer = null;
const session = new Session({
  url,
  token,
  WebSocket: PageSocket,
  renew: (code) => {
    say({ event: "renewal", code, awake: awake() });
    return new Promise((resolve) => (answer = resolve));
  },
});

let place;
if (kind === "rooms") {
  place = new Rooms(session).open(name);
  place.messages.on(({ payload }) => say({ event: "message", text: payload.text }));
} else {
  const { openDocument } = await import(`@roomkey/client/${kind}`);
  place = openDocument(session, name);
}
const changed = () => say({ ...place.status.value, saved: place.saved.value, session: session.status.value.state, awake: awake() });
place.status.subscribe(changed);
place.saved.subscribe(changed);
session.status.subscribe(changed);

const commands = {
  wake: (milliseconds) => {
    slept += milliseconds;
    wokeAt = performance.now();
  },
  token: (next) => answer(next),
  write: (words) =>
    kind === "rooms" ? void place.publish({ text: words }).catch(() => {}) : place.doc.getText("content").insert(0, words),
};
createInterface({ input: process.stdin })
  .on("line", (line) => {
    const [command, ...given] = JSON.parse(line);
    commands[command](...given);
  })
  .on("close", () => process.exit(0));
