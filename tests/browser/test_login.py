"""A browser logs in, edits, and logs out; and no page of somebody else does any of that for its user."""

import json
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import httpx
from playwright.async_api import Page, async_playwright

from tests.browser.windows import NEEDED
from tests.support.server import Server

pytestmark = NEEDED

LOG_IN = """async token => {
  const answer = await fetch("/login", {
    method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify({token}),
  });
  return {status: answer.status, body: await answer.json(), cookie: document.cookie};
}"""

EDIT = """url => new Promise(done => {
  const socket = new WebSocket(url);
  const say = (message_type, payload) =>
    socket.send(JSON.stringify({message_type, payload: {document: "plan", ...payload}}));
  window.ended = new Promise(ended => { socket.onclose = ({code, reason}) => ended([code, reason]); });
  socket.onmessage = ({data}) => {
    const {message_type} = JSON.parse(data);
    if (message_type === "session_connected") say("subscribe", {});
    if (message_type === "subscribed") say("realtime_edit", {text: "hello"});
    if (message_type === "ack") done("edited");
  };
})"""

ATTACK = """async ([url, token]) => {
  const quietly = work => Promise.resolve().then(work).then(() => "sent", () => "blocked");
  const seen = {};
  for (const path of ["/logout", "/sessions/me/tickets", "/users/ada/sessions"]) {
    seen["fetch " + path] = await quietly(() =>
      fetch(url + path, {method: "POST", credentials: "include", mode: "no-cors"}));
  }
  seen["delete"] = await quietly(() => fetch(url + "/sessions/me", {method: "DELETE", credentials: "include"}));
  seen["login"] = await quietly(() => fetch(url + "/login", {
    method: "POST", credentials: "include", mode: "no-cors",
    headers: {"content-type": "text/plain"}, body: JSON.stringify({token}),
  }));
  seen["image"] = await new Promise(done => {
    const image = new Image();
    image.onload = image.onerror = () => done("asked");
    image.src = url + "/logout";
  });
  seen["form"] = await new Promise(done => {
    const frame = Object.assign(document.createElement("iframe"), {name: "target"});
    document.body.append(frame);
    const form = document.createElement("form");
    Object.assign(form, {method: "POST", action: url + "/logout", target: "target"});
    document.body.append(form);
    frame.onload = () => done("sent");
    form.submit();
  });
  seen["socket"] = await new Promise(done => {
    const socket = new WebSocket(url.replace("http", "ws") + "/ws");
    socket.onmessage = ({data}) => done(JSON.parse(data).message_type);
    socket.onclose = ({code}) => done("closed " + code);
  });
  return seen;
}"""


class _Evil(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>Kittens</title><body>"
        self.send_response(200)
        self.send_header("content-type", "text/html")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *_: Any) -> None:
        pass


@contextmanager
def somebody_elses_site() -> Generator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Evil) as site:
        Thread(target=site.serve_forever, daemon=True).start()
        yield site.server_address[1]
        site.shutdown()


async def session(server: Server, user: str) -> dict[str, Any]:
    async with httpx.AsyncClient(base_url=server.url) as backend:
        return (await backend.post("/sessions", json={"user_id": user, "activate": True})).json()


async def state(server: Server, id: str) -> str:
    async with httpx.AsyncClient(base_url=server.url) as operator:
        return (await operator.get(f"/sessions/{id}")).json()["state"]


async def cookies(page: Page) -> dict[str, str]:
    return {cookie.get("name", ""): cookie.get("value", "") for cookie in await page.context.cookies()}


async def test_a_browser_logs_in_edits_is_attacked_and_logs_out(browser: str, server: Server) -> None:
    issued, planted = await session(server, "ada"), await session(server, "mallory")
    id = issued["session"]["id"]
    async with async_playwright() as playwright:
        connected = await playwright.chromium.connect_over_cdp(browser)
        context = await connected.new_context()
        page = await context.new_page()
        await page.goto(f"{server.url}/docs")

        logged_in = await page.evaluate(LOG_IN, issued["token"])
        edited = await page.evaluate(EDIT, server.websocket_url)

        assert (logged_in["status"], edited) == (200, "edited")
        assert issued["token"].partition(".")[2] not in json.dumps(logged_in)
        jar = await cookies(page)
        assert set(jar) == {"__Host-roomkey", "__Host-roomkey-csrf"}
        assert logged_in["cookie"] == f"__Host-roomkey-csrf={jar['__Host-roomkey-csrf']}"
        assert jar["__Host-roomkey"] not in (issued["token"], "")

        with somebody_elses_site() as port:
            # Of another site, and of the same site at another port: to that one the browser sends the cookie along.
            for host in ("localhost", "127.0.0.1"):
                evil = await context.new_page()
                await evil.goto(f"http://{host}:{port}/")

                seen = await evil.evaluate(ATTACK, [server.url, planted["token"]])

                assert seen["socket"].startswith("closed"), seen
                assert seen["delete"] == "blocked", seen
                assert await cookies(page) == jar
                assert await state(server, id) == "active"
                await evil.close()
        assert await state(server, planted["session"]["id"]) == "active"

        status = await page.evaluate("() => fetch('/logout', {method: 'POST'}).then(answer => answer.status)")
        ended = await page.evaluate("() => window.ended")

        assert (status, ended) == (204, [4401, "session_invalidated: logout"])
        assert await cookies(page) == {}
        assert await state(server, id) == "invalidated"
        await context.close()
        await connected.close()
