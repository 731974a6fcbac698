// Hocuspocus with its Database extension on a file of SQLite, at its own pace; with a URL also its Redis extension.
// Several may share the file. hocuspocus-stored.mjs FILE [REDIS-URL]

import { Database } from "@hocuspocus/extension-database";
import { Redis } from "@hocuspocus/extension-redis";
import { Server } from "@hocuspocus/server";
import { DatabaseSync } from "node:sqlite";

const [file, url] = process.argv.slice(2);
const database = new DatabaseSync(file);
// As durable as Roomkey on SQLite: the log is on the disk when a transaction is acknowledged.
database.exec("PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL");
database.exec("CREATE TABLE IF NOT EXISTS documents (name TEXT PRIMARY KEY, data BLOB NOT NULL)");
const select = database.prepare("SELECT data FROM documents WHERE name = ?");
const upsert = database.prepare("INSERT INTO documents VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET data = excluded.data");

const extensions = [
  new Database({
    fetch: async ({ documentName }) => select.get(documentName)?.data ?? null,
    store: async ({ documentName, state }) => {
      upsert.run(documentName, state);
    },
  }),
];
if (url) {
  const { hostname, port } = new URL(url);
  extensions.push(new Redis({ host: hostname, port: Number(port) }));
}
const server = new Server({ address: "127.0.0.1", port: 0, quiet: true, extensions });
await server.listen();
console.log(`listening on ${server.address.port}`);
