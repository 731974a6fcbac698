// The least that a room can do: what one client says goes, unread, to everybody else.

import { WebSocketServer } from "ws";

const server = new WebSocketServer({ host: "127.0.0.1", port: 0, backlog: 4096, perMessageDeflate: false }, () =>
  console.log(`listening on ${server.address().port}`),
);

server.on("connection", (socket) => {
  socket.on("message", (data, isBinary) => {
    for (const client of server.clients) {
      if (client !== socket && client.readyState === 1) client.send(data, { binary: isBinary });
    }
  });
  socket.on("error", () => socket.terminate());
});
