// A room of Socket.IO on several servers: what one client says goes to everybody else, by way of a stream in Redis,
// from which clients that come back are told what they missed. socketio.mjs REDIS-URL

import { createAdapter } from "@socket.io/redis-streams-adapter";
import { createServer } from "node:http";
import { createClient } from "redis";
import { Server } from "socket.io";

const redis = createClient({ url: process.argv[2] });
await redis.connect();

const http = createServer();
const io = new Server(http, { adapter: createAdapter(redis), connectionStateRecovery: {}, transports: ["websocket"] });
io.on("connection", (socket) => {
  socket.join("room");
  socket.on("edit", (edit) => socket.to("room").emit("edit", edit));
});

http.listen({ port: 0, host: "127.0.0.1", backlog: 4096 }, () => console.log(`listening on ${http.address().port}`));
