// What a snippet of the documentation finds: a browser's WebSocket, the token of a session, and a document.
// A snippet leaves a `provider` or a `socket` behind; `works` ends the process once the server has answered it.
import WebSocket from "ws";
import { Doc } from "yjs";

const PATIENCE_MS = 10_000;

Object.assign(globalThis, { WebSocket, token: process.env.TOKEN, doc: new Doc() });

const synced = (provider) => new Promise((done) => (provider.synced ? done() : provider.on("synced", done)));
const greeted = (socket) =>
  new Promise((done, failed) => {
    socket.addEventListener("message", done);
    socket.addEventListener("close", ({ code }) => failed(new Error(`closed with ${code}`)));
  });

export async function works({ provider, socket }) {
  setTimeout(() => {
    console.error("the server has not answered");
    process.exit(1);
  }, PATIENCE_MS);
  await (provider ? synced(provider) : greeted(socket));
  process.exit(0);
}
