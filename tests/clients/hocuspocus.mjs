// A Hocuspocus client: node hocuspocus.mjs BASE TOKEN DOCUMENT [ORIGIN], with BASE like ws://127.0.0.1:3000
// With an ORIGIN it is as a page has it; without, it loses no time.
import { HocuspocusProvider, HocuspocusProviderWebsocket } from "@hocuspocus/provider";
import { document, drive, event, socketOf } from "./driver.mjs";

const [base, first, name, origin] = process.argv.slice(2);
let token = first;
const doc = document();
const socket = new HocuspocusProviderWebsocket({
  url: `${base}/hocuspocus`,
  WebSocketPolyfill: socketOf(origin),
  ...(origin === undefined ? { delay: 50, minDelay: 0, maxDelay: 100 } : {}),
});
const provider = new HocuspocusProvider({
  websocketProvider: socket,
  name,
  document: doc,
  token: () => token,
  onAuthenticationFailed: ({ reason }) => event("refused", { reason }),
});
const changed = drive(
  doc,
  provider.awareness,
  () => ({ synced: provider.synced, unsaved: provider.unsyncedChanges, scope: provider.authorizedScope ?? null }),
  {
    connect: () => socket.connect(),
    disconnect: () => socket.disconnect(),
    token: (next) => {
      token = next;
      provider.sendToken();
    },
  },
);
for (const what of ["synced", "unsyncedChanges", "authenticated"]) provider.on(what, changed);
socket.on("close", ({ event: close }) => event("close", { code: close?.code, reason: close?.reason?.toString() }));
provider.attach();
