// Hocuspocus as it comes: documents in memory, everybody is let in, nothing is stored.

import { Server } from "@hocuspocus/server";

const server = new Server({ address: "127.0.0.1", port: 0, quiet: true });
await server.listen();
console.log(`listening on ${server.address.port}`);
