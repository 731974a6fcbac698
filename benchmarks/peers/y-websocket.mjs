// The server of y-websocket as it comes: documents in memory, everybody is let in, nothing is stored.

import { createServer } from "node:http";
import { WebSocketServer } from "ws";
import { setupWSConnection } from "@y/websocket-server/utils";

const server = createServer();
new WebSocketServer({ server }).on("connection", setupWSConnection);
server.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(`listening on ${server.address().port}`));
