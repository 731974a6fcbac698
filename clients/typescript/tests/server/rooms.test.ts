import { expect, test } from "vitest";
import WebSocket from "ws";

import { NotPublished, Rooms, type Room, type RoomMessage, type Session } from "../../src/index.ts";
import { anotherToken, closing, issue, line, newDocument, NodeSocket, order, session, until, untilState, url } from "./server.ts";

const READ = { grants: [{ documents: "notes/**", access: "read" }] };

async function join(own: Session, document: string): Promise<Room> {
  const room = closing(new Rooms(own)).open(document);
  await untilState(room.status, "active", "readonly");
  return room;
}

function heard(room: Room): { all: unknown[]; count: (n: number) => Promise<unknown> } {
  const all: unknown[] = [];
  const listeners = new Set<() => void>();
  room.messages.on((message: RoomMessage) => {
    all.push(message.payload["text"]);
    listeners.forEach((listener) => listener());
  });
  const cell = { get value() { return all.length; }, subscribe(watcher: (n: number) => void) {
    const listener = (): void => watcher(all.length);
    listeners.add(listener);
    listener();
    return () => void listeners.delete(listener);
  } };
  return { all, count: (n) => until(cell, (length) => length >= n) };
}

test("what one publishes the other hears, and the publisher is told when it is taken", async () => {
  const document = newDocument();
  const ada = await join(session(await issue("ada")), document);
  const grace = await join(session(await issue("grace")), document);
  const ears = heard(grace);

  const published = ada.publish({ text: "hello" });
  expect(ada.saved.value).toEqual({ state: "saving", unsaved: 1 });
  const position = await published;
  await ears.count(1);

  expect(ears.all).toEqual(["hello"]);
  expect(ada.saved.value).toEqual({ state: "saved", unsaved: 0 });
  expect(ada.position).toEqual(position);
});

test("who was away gets what was missed, once and in order, and what they wrote is sent", async () => {
  const document = newDocument();
  const wire = await line();
  const ada = await join(session(await issue("ada"), { url: wire.url }), document);
  const grace = await join(session(await issue("grace")), document);
  const [ears, others] = [heard(ada), heard(grace)];
  await grace.publish({ text: "1" });
  await ears.count(1);

  wire.cut();
  await untilState(ada.status, "offline");
  await grace.publish({ text: "2" });
  await grace.publish({ text: "3" });
  const own = ada.publish({ text: "mine" });
  expect(await until(ada.status, (status) => status.state === "offline" && status.unsaved === 1)).toBeTruthy();
  wire.mend();
  await own;
  await ears.count(3);
  await others.count(1);
  await grace.publish({ text: "4" });
  await ears.count(4);

  expect(ears.all).toEqual(["1", "2", "3", "4"]);
  expect(others.all).toEqual(["mine"]);
  expect(ada.status.value.state).toBe("active");
});

test("a message whose acknowledgement was lost is published once", async () => {
  const document = newDocument();
  const wire = await line();
  const ada = await join(session(await issue("ada"), { url: wire.url }), document);
  const grace = await join(session(await issue("grace")), document);
  const [ears, own] = [heard(grace), heard(ada)];

  wire.deafen();
  const published = ada.publish({ text: "once" });
  await ears.count(1);
  wire.cut();
  wire.mend();
  await published;
  await ada.publish({ text: "end" });
  await ears.count(2);

  expect(ears.all).toEqual(["once", "end"]);
  expect(own.all).toEqual([]);
});

test("who left while one was away is not shown afterwards", async () => {
  const document = newDocument();
  const wire = await line();
  const ada = await join(session(await issue("ada"), { url: wire.url }), document);
  const grace = await join(session(await issue("grace")), document);
  const stays = await join(session(await issue("hedy")), document);
  grace.show("typing");
  stays.show("reading");
  await until(ada.presence, (present) => present.length === 2);

  wire.cut();
  await untilState(ada.status, "offline");
  grace.leave();
  await until(stays.presence, (present) => present.length === 0);
  wire.mend();
  await untilState(ada.status, "active");

  expect(ada.presence.value.map(({ status }) => status)).toEqual(["reading"]);
});

test("what one shows is shown again after a pause", async () => {
  const document = newDocument();
  const wire = await line();
  const ada = await join(session(await issue("ada"), { url: wire.url }), document);
  const grace = await join(session(await issue("grace")), document);
  ada.show("typing", { line: 3 });
  await until(grace.presence, (present) => present.length === 1);

  wire.cut();
  await until(grace.presence, (present) => present.length === 0);
  wire.mend();
  const [shown] = await until(grace.presence, (present) => present.length === 1);

  expect(shown).toMatchObject({ status: "typing", line: 3 });
});

test("a suspended session waits, says why, and goes on when it is resumed", async () => {
  const issued = await issue("ada");
  const own = session(issued);
  const room = await join(own, newDocument());

  await order("suspend", issued, { reason: "lunch" });
  expect(await untilState(room.status, "suspended")).toEqual({ state: "suspended", reason: "lunch" });
  expect(own.status.value.state).toBe("suspended");
  const published = room.publish({ text: "later" });
  await order("resume", issued);

  await published;
  expect(room.status.value.state).toBe("active");
});

test("a session that was ended says so and does not come back", async () => {
  const issued = await issue("ada");
  const own = session(issued);
  const room = await join(own, newDocument());
  await order("suspend", issued);
  await untilState(room.status, "suspended");
  const published = room.publish({ text: "never" });

  await order("invalidate", issued, { reason: "spam" });

  expect(await untilState(room.status, "removed")).toEqual({ state: "removed", code: "session_invalidated", reason: null });
  await expect(published).rejects.toBeInstanceOf(NotPublished);
});

test("the reason of an end reaches the page, and the user may log in again", async () => {
  const issued = await issue("ada");
  const own = session(issued);
  const room = await join(own, newDocument());

  await order("invalidate", issued, { reason: "spam" });
  expect(await untilState(room.status, "removed")).toEqual({ state: "removed", code: "session_invalidated", reason: "spam" });
  own.use(await anotherToken(issued));

  await untilState(room.status, "active");
  expect(own.status.value.state).toBe("active");
});

test("an expired session gets a new token from the application", async () => {
  const issued = await issue("ada");
  const asked: string[] = [];
  const own = session(issued, {
    renew: async (code) => {
      asked.push(code);
      return await anotherToken(issued);
    },
  });
  const room = await join(own, newDocument());

  await order("expire", issued);
  await untilState(room.status, "connecting");
  await untilState(room.status, "active");

  expect(asked).toEqual(["session_expired"]);
  expect(own.id).not.toBe(issued.session.id);
});

test("without a new token an expired session says so, until it is given one", async () => {
  const issued = await issue("ada");
  const own = session(issued, { renew: async () => null });
  const room = await join(own, newDocument());

  await order("expire", issued);
  expect(await untilState(room.status, "expired")).toEqual({ state: "expired", code: "session_expired" });
  expect(own.status.value.state).toBe("expired");
  own.use(await anotherToken(issued));

  await untilState(room.status, "active");
});

test("a token that was replaced is known from another window, without asking the application", async () => {
  const issued = await issue("ada");
  const renew = async (): Promise<never> => expect.unreachable("the application was asked");
  const [one, other] = [session(issued, { renew }), session(issued, { renew })];
  const room = await join(other, newDocument());

  await one.rotate();
  await until({ get value() { return other.token; }, subscribe: (watcher) => {
    watcher(other.token);
    return other.renewed.on(watcher);
  } }, (token) => token === one.token);
  await other.check();

  expect(one.token).not.toBe(issued.token);
  expect(room.status.value.state).toBe("active");
});

test("a window that slept over a rotation asks the others before the application", async () => {
  const issued = await issue("ada");
  const renew = async (): Promise<never> => expect.unreachable("the application was asked");
  const awake = session(issued, { renew });
  awake.use((await order("reauthenticate", issued)).token);

  const slept = session(issued, { renew });
  const room = await join(slept, newDocument());

  expect(slept.token).toBe(awake.token);
  expect(room.status.value.state).toBe("active");
});

test("a session that ends soon is renewed before it has ended, once, and nobody notices", async () => {
  const issued = await issue("ada", { lifetime: 3 });
  const asked: string[] = [];
  const own = session(issued, {
    renew: async (code) => {
      asked.push(code);
      return anotherToken(issued);
    },
  });
  const room = await join(own, newDocument());
  const states = new Set<string>();
  room.status.subscribe(({ state }) => states.add(state));

  await until(own.facts, (facts) => facts !== null && facts.id !== issued.session.id);
  await order("expire", issued);
  await room.publish({ text: "still here" });

  expect(asked).toEqual(["session_expiring"]);
  expect(states).toEqual(new Set(["active"]));
});

test("windows that rotate at once get the same token", async () => {
  const issued = await issue("ada");
  const [one, other] = [session(issued, { share: false }), session(issued, { share: false })];

  await Promise.all([one.rotate(), other.rotate()]);

  expect(one.token).toBe(other.token);
  expect(one.token).not.toBe(issued.token);
});

test("a new token is shown on the open socket, which goes on", async () => {
  const issued = await issue("ada");
  const own = session(issued);
  const room = await join(own, newDocument());
  const states: string[] = [];
  room.status.subscribe(({ state }) => states.push(state));

  own.use(await anotherToken(issued));
  await room.publish({ text: "still here" });
  await order("expire", issued);
  await room.publish({ text: "and here" });

  expect(new Set(states)).toEqual(new Set(["active"]));
});

test("who may only read is told so at once, and not taken seriously", async () => {
  const document = newDocument();
  const room = await join(session(await issue("ada", READ)), document);
  await untilState(room.status, "readonly");

  await expect(room.publish({ text: "no" })).rejects.toMatchObject({ code: "FORBIDDEN" });

  expect(room.saved.value.state).toBe("saved");
});

test("who may do less, or more again, is told so while the room is open", async () => {
  const issued = await issue("ada");
  const room = await join(session(issued), newDocument());
  await room.publish({ text: "mine" });

  await order("grants", issued, READ);
  await untilState(room.status, "readonly");
  await order("grants", issued, { grants: [{ documents: "**", access: "write" }] });
  await untilState(room.status, "active");

  await room.publish({ text: "mine again" });
});

test("a document that may not be opened is refused, and others are not", async () => {
  const rooms = closing(new Rooms(session(await issue("ada", READ))));
  const [closed, open] = [rooms.open("secret"), rooms.open(newDocument())];

  expect(await untilState(closed.status, "removed")).toEqual({ state: "removed", code: "forbidden", reason: null });
  await untilState(open.status, "readonly");
});

test("grants that are taken away close a room at once", async () => {
  const issued = await issue("ada");
  const room = await join(session(issued), newDocument());

  await order("grants", issued, { grants: [] });

  expect(await untilState(room.status, "removed")).toMatchObject({ code: "forbidden" });
});

test("a made-up token opens nothing, and the application is asked twice at most", async () => {
  const issued = await issue("ada");
  let asked = 0;
  const own = session({ ...issued, token: `${issued.session.id}.${"A".repeat(43)}` }, {
    renew: async () => `${issued.session.id}.${"B".repeat(42)}${(asked += 1)}`,
  });

  const room = closing(new Rooms(own)).open(newDocument());

  expect(await untilState(room.status, "expired")).toEqual({ state: "expired", code: "invalid_token" });
  expect(asked).toBeLessThanOrEqual(2);
});

test("an application that has no token now is asked again later", async () => {
  const issued = await issue("ada");
  await order("expire", issued);
  let asked = 0;
  const own = session(issued, {
    renew: async () => {
      asked += 1;
      if (asked === 1) throw new Error("the backend is away");
      return await anotherToken(issued);
    },
  });

  const room = closing(new Rooms(own)).open(newDocument());

  await untilState(room.status, "offline");
  await untilState(room.status, "active");
  expect(asked).toBe(2);
});

test("a server that cannot be reached is offline, and found when it is there", async () => {
  const wire = await line();
  wire.cut();
  const own = session(await issue("ada"), { url: wire.url });
  const room = closing(new Rooms(own)).open(newDocument());

  await untilState(room.status, "offline");
  expect(own.status.value.state).toBe("offline");
  wire.mend();

  await untilState(room.status, "active");
});

test("a handshake without an origin is understood, too", async () => {
  const issued = await issue("ada");
  const own = session(issued, { WebSocket: NodeSocket });
  const room = await join(own, newDocument());

  await order("invalidate", issued);

  expect(await untilState(room.status, "removed")).toMatchObject({ code: "session_invalidated" });
});

test("a page whose session is in a cookie needs no token", async () => {
  const issued = await issue("ada");
  // What a browser does with its cookies.
  const headers = { cookie: `__Host-roomkey=${issued.token}` };
  class CookieSocket extends WebSocket {
    constructor(address: string | URL, protocols?: string | string[]) {
      super(address, protocols ?? [], { origin: url, headers });
    }
  }
  const own = session({ ...issued, token: undefined } as never, {
    fetch: (address, init) => fetch(address, { ...init, headers: { ...(init?.headers as object), ...headers } }),
    WebSocket: CookieSocket as unknown as typeof globalThis.WebSocket,
  });
  const room = await join(own, newDocument());

  await order("suspend", issued);
  await untilState(room.status, "suspended");

  expect(own.id).toBe(issued.session.id);
});
