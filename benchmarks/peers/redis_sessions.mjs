// The store of express-session on Redis (connect-redis), as its middleware calls it, by so many callers at once.
// redis_sessions.mjs URL CASE CALLERS SECONDS prints how often and how long, as JSON.

import { randomBytes } from "node:crypto";
import { RedisStore } from "connect-redis";
import { createClient } from "redis";

const LIFETIME_MS = 24 * 3600 * 1000;
const READERS = 1000; // so many sessions are read in turns

const [url, wanted, callers, seconds] = process.argv.slice(2);
const client = createClient({ url });
await client.connect();
const store = new RedisStore({ client });

const called = (method, ...args) =>
  new Promise((resolve, reject) => store[method](...args, (error, found) => (error ? reject(error) : resolve(found))));

const session = (id) => ({
  cookie: { originalMaxAge: LIFETIME_MS, expires: new Date(Date.now() + LIFETIME_MS), httpOnly: true, path: "/" },
  user_id: id,
});

const create = (id) => called("set", id, session(id));

async function get(id) {
  const found = await called("get", id);
  if (found?.user_id !== id) throw new Error("the session is not there");
  return found;
}

// A request that changes nothing: the session is read, and its lifetime begins anew with the answer.
const request = async (id) => called("touch", id, await get(id));

const newId = () => randomBytes(24).toString("base64url");
const ids = Array.from({ length: READERS }, newId);
await Promise.all(ids.map(create));

const act = { create: () => create(newId()), get: (number) => get(ids[number % READERS]) }[wanted];
const call = act ?? ((number) => request(ids[number % READERS]));
const durations = [];
const usedBefore = process.cpuUsage();
const begun = performance.now();
const end = begun + seconds * 1000;

async function againAndAgain(number) {
  for (let sent = performance.now(); sent < end; sent = performance.now()) {
    number += 1;
    await call(number);
    durations.push(performance.now() - sent);
  }
}

await Promise.all(Array.from({ length: Number(callers) }, (_, number) => againAndAgain(number)));
const elapsed = performance.now() - begun;
const used = process.cpuUsage(usedBefore);
await client.close();
durations.sort((one, other) => one - other);
console.log(
  JSON.stringify({
    operations: durations.length / (elapsed / 1000),
    cpu_seconds: (used.user + used.system) / 1e6 / durations.length,
    p50: durations[Math.floor(durations.length / 2)] / 1000,
    p99: durations[Math.floor((durations.length * 99) / 100)] / 1000,
  }),
);
