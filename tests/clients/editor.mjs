// An editor on Node's `ws`: node editor.mjs URL TOKEN DOCUMENT TEXT
// Follows the document, edits it once when told to on standard input, and prints every message and the close code.
import WebSocket from "ws";

const [url, token, document, text] = process.argv.slice(2);
const socket = new WebSocket(url, [`roomkey.token.${token}`, "roomkey.v1"]);
const say = (what) => process.stdout.write(JSON.stringify(what) + "\n");
const send = (id, message_type, payload) => socket.send(JSON.stringify({ id, message_type, payload }));

socket.on("open", () => {
  say({ opened: socket.protocol });
  send("1", "subscribe", { document });
});
socket.on("message", (data, binary) => say({ binary, message: JSON.parse(data) }));
socket.on("close", (code, reason) => {
  say({ closed: code, reason: reason.toString() });
  process.exit(0);
});
socket.on("error", (error) => say({ error: error.message }));
process.stdin.on("data", () => send("2", "realtime_edit", { document, text }));
