import { describe, expect, test } from "vitest";
import * as Y from "yjs";

import type { Session } from "../../src/index.ts";
import { openDocument as openHocuspocus } from "../../src/hocuspocus.ts";
import { openDocument as openYWebsocket, type OpenDocument } from "../../src/y-websocket.ts";
import { anotherToken, closing, command, issue, line, newDocument, NodeSocket, order, session, until, untilState } from "./server.ts";

const READ = [{ documents: "notes/**", access: "read" }];
const WRITE = [{ documents: "notes/**", access: "write" }];

const PROVIDERS: Record<string, (own: Session, name: string, doc?: Y.Doc) => OpenDocument<unknown>> = {
  "y-websocket": openYWebsocket,
  Hocuspocus: openHocuspocus,
};

/** The text of a document, to be watched. */
const textOf = ({ doc }: OpenDocument<unknown>) => {
  const text = doc.getText("content");
  return {
    get value() {
      return text.toString();
    },
    subscribe(watcher: (value: string) => void) {
      const listener = (): void => watcher(text.toString());
      text.observe(listener);
      listener();
      return () => text.unobserve(listener);
    },
  };
};

const write = ({ doc }: OpenDocument<unknown>, words: string): void => doc.getText("content").insert(0, words);
const names = (opened: OpenDocument<unknown>): unknown[] => opened.presence.value.map((person) => person["name"]).sort();

describe.each(Object.entries(PROVIDERS))("a document over %s", (_kind, open) => {
  const join = async (own: Session, name: string): Promise<OpenDocument<unknown>> => {
    const opened = closing(open(own, name));
    await untilState(opened.status, "active", "readonly");
    return opened;
  };

  test("what one writes the other sees, and it is said when it is durable", async () => {
    const name = newDocument();
    const ada = await join(session(await issue("ada")), name);
    const grace = await join(session(await issue("grace")), name);

    write(ada, "hello");
    expect(ada.saved.value).toEqual({ state: "saving", unsaved: 1 });
    await until(textOf(grace), (text) => text === "hello");
    await untilState(ada.saved, "saved");

    expect(grace.saved.value.state).toBe("saved");
  });

  test("what is written without a connection is counted, and saved when it is back", async () => {
    const name = newDocument();
    const wire = await line();
    const ada = await join(session(await issue("ada"), { url: wire.url }), name);
    const grace = await join(session(await issue("grace")), name);

    wire.cut();
    await untilState(ada.status, "offline");
    write(ada, "b");
    write(ada, "a");
    write(grace, "c");
    expect(ada.status.value).toEqual({ state: "offline", unsaved: 2 });
    wire.mend();

    await until(textOf(grace), (text) => ["abc", "cab"].includes(text));
    await untilState(ada.saved, "saved");
    expect(ada.status.value.state).toBe("active");
  });

  test("who left while one was away is not shown afterwards", async () => {
    const name = newDocument();
    const wire = await line();
    const ada = await join(session(await issue("ada"), { url: wire.url }), name);
    const grace = await join(session(await issue("grace")), name);
    const hedy = await join(session(await issue("hedy")), name);
    grace.show("name", "grace");
    hedy.show("name", "hedy");
    await until(ada.presence, () => names(ada).length === 2);

    wire.cut();
    await untilState(ada.status, "offline");
    grace.close();
    await until(hedy.presence, () => !names(hedy).includes("grace"));
    wire.mend();
    await untilState(ada.status, "active");
    await until(ada.presence, () => names(ada).includes("hedy"));

    expect(names(ada)).toEqual(["hedy"]);
  });

  test("a suspended session waits, says why, and sends what was written when it is resumed", async () => {
    const name = newDocument();
    const issued = await issue("ada");
    const ada = await join(session(issued), name);
    const grace = await join(session(await issue("grace")), name);

    await order("suspend", issued, { reason: "lunch" });
    expect(await untilState(ada.status, "suspended")).toEqual({ state: "suspended", reason: "lunch" });
    write(ada, "later");
    await order("resume", issued);

    await until(textOf(grace), (text) => text === "later");
    await untilState(ada.saved, "saved");
    expect(ada.status.value.state).toBe("active");
  });

  test("a session that was ended says why, and does not come back", async () => {
    const issued = await issue("ada");
    const ada = await join(session(issued), newDocument());

    await order("invalidate", issued, { reason: "spam" });

    expect(await untilState(ada.status, "removed")).toEqual({ state: "removed", code: "session_invalidated", reason: "spam" });
  });

  test("an expired session gets a new token from the application, and goes on", async () => {
    const issued = await issue("ada");
    const own = session(issued, { renew: async () => await anotherToken(issued) });
    const ada = await join(own, newDocument());

    await order("expire", issued);
    await untilState(ada.status, "connecting");
    await untilState(ada.status, "active");
    write(ada, "still here");

    await untilState(ada.saved, "saved");
    expect(own.id).not.toBe(issued.session.id);
  });

  test("without a new token it says that it expired, until it is given one", async () => {
    const issued = await issue("ada");
    const own = session(issued);
    const ada = await join(own, newDocument());

    await order("expire", issued);
    expect(await untilState(ada.status, "expired")).toEqual({ state: "expired", code: "session_expired" });
    own.use(await anotherToken(issued));

    await untilState(ada.status, "active");
  });

  test("a rotation goes unnoticed, and the new token opens the next connection", async () => {
    const wire = await line();
    const own = session(await issue("ada"), { url: wire.url });
    const ada = await join(own, newDocument());

    await own.rotate();
    wire.cut();
    await untilState(ada.status, "offline");
    wire.mend();

    await untilState(ada.status, "active");
  });

  test("who may only read is told so at once, and may write as soon as the grants say so", async () => {
    const name = newDocument();
    const grace = await join(session(await issue("grace")), name);
    write(grace, "hello");
    await untilState(grace.saved, "saved");
    const issued = await issue("ada", { grants: READ });
    const ada = await join(session(issued), name);
    expect(ada.status.value.state).toBe("readonly");

    write(ada, "not yet ");
    expect(ada.saved.value).toEqual({ state: "saving", unsaved: 1 });
    await order("grants", issued, { grants: WRITE });

    await untilState(ada.status, "active");
    await untilState(ada.saved, "saved");
    await until(textOf(grace), (text) => text === "not yet hello");
    await order("grants", issued, { grants: READ });
    await untilState(ada.status, "readonly");
  });

  test("what a group may do holds while the document is open", async () => {
    const name = newDocument();
    const team = name.replaceAll("/", "-");
    const group = `groups/${team}`;
    await command("PUT", group, { grants: READ });
    const ada = await join(session(await issue("ada", { grants: [{ group: team }] })), name);
    expect(ada.status.value.state).toBe("readonly");
    write(ada, "not yet");

    await command("PUT", group, { grants: WRITE });
    await untilState(ada.status, "active");
    await untilState(ada.saved, "saved");
    await command("PUT", group, { grants: READ });
    await untilState(ada.status, "readonly");
  });

  test("a document that may not be opened is refused for good", async () => {
    const opened = closing(open(session(await issue("ada", { grants: READ })), "secret"));

    expect(await untilState(opened.status, "removed")).toEqual({ state: "removed", code: "forbidden", reason: null });
  });

  test("a program without an origin is told of that, too", async () => {
    const own = session(await issue("ada", { grants: READ }), { WebSocket: NodeSocket });
    const opened = closing(open(own, "secret"));

    expect(await untilState(opened.status, "removed")).toMatchObject({ state: "removed" });
  });

  test("a document that was deleted is over, and its copy does not bring it back", async () => {
    const name = newDocument();
    const ada = await join(session(await issue("ada")), name);
    write(ada, "gone");
    await untilState(ada.saved, "saved");

    await command("DELETE", `documents/${encodeURIComponent(name)}`);

    expect(await untilState(ada.status, "removed")).toMatchObject({ code: "document_deleted" });
  });

  test("a copy from elsewhere is not called saved before the server has it", async () => {
    const wire = await line();
    wire.cut();
    const doc = new Y.Doc();
    doc.getText("content").insert(0, "kept on this machine");
    const name = newDocument();

    const ada = closing(open(session(await issue("ada"), { url: wire.url }), name, doc));
    expect(ada.saved.value.state).toBe("saving");
    wire.mend();

    await untilState(ada.saved, "saved");
    const other = await join(session(await issue("grace")), name);
    expect(textOf(other).value).toBe("kept on this machine");
  });
});

test("a copy of another history is not merged: y-websocket states which one it has", async () => {
  const name = newDocument();
  const wire = await line();
  const own = session(await issue("ada"), { url: wire.url });
  const ada = closing(openYWebsocket(own, name));
  write(ada, "old");
  await untilState(ada.saved, "saved");
  await until({ get value() { return ada.provider.params; }, subscribe: (watcher) => {
    const timer = setInterval(() => watcher(ada.provider.params), 10);
    return () => clearInterval(timer);
  } }, () => ada.lineage !== null);

  wire.cut();
  await untilState(ada.status, "offline");
  await command("DELETE", `documents/${encodeURIComponent(name)}`);
  await command("PUT", `documents/${encodeURIComponent(name)}`, { content: "new" });
  wire.mend();

  expect(await untilState(ada.status, "removed")).toMatchObject({ code: "lineage_mismatch" });
});
