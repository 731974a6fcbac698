// Sessions as Express does them: express-session with its own store in memory.

import express from "express";
import session from "express-session";

const app = express();
app.disable("x-powered-by");
app.disable("etag");
app.use(express.json());
app.use(session({ secret: "not a secret here", resave: false, saveUninitialized: false }));

app.post("/sessions", (request, response) => {
  request.session.user_id = request.body.user_id;
  response.status(201).json({ id: request.session.id, user_id: request.session.user_id });
});

app.get("/sessions/me", (request, response) => {
  const { user_id } = request.session;
  if (user_id === undefined) response.status(401).json({ code: "unauthorized" });
  else response.json({ id: request.session.id, user_id });
});

app.get("/health", (_request, response) => response.json({ status: "ok" }));

const server = app.listen(0, "127.0.0.1", () => console.log(`listening on ${server.address().port}`));
