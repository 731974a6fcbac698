// A y-websocket client: node ywebsocket.mjs BASE TOKEN DOCUMENT [ORIGIN], with BASE like ws://127.0.0.1:3000
// With an ORIGIN it is as a page has it; without, it loses no time.
import { WebsocketProvider } from "y-websocket";
import { document, drive, event, socketOf } from "./driver.mjs";

const [base, token, name, origin] = process.argv.slice(2);
const doc = document();
const provider = new WebsocketProvider(`${base}/yjs`, name, doc, {
  protocols: ["roomkey.v1", `roomkey.token.${token}`],
  WebSocketPolyfill: socketOf(origin),
  disableBc: true,
  ...(origin === undefined ? { maxBackoffTime: 100 } : {}),
});
const changed = drive(doc, provider.awareness, () => ({ synced: provider.synced }), {
  connect: () => provider.connect(),
  disconnect: () => provider.disconnect(),
});
provider.on("sync", changed);
provider.on("connection-close", (close) => event("close", { code: close?.code, reason: close?.reason }));
provider.on("closed", ({ code, reason }) => event("over", { code, reason }));
