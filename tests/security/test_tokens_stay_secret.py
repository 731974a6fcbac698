"""Whoever gets hold of what the server leaves behind does not get in (ASVS 5.0 16.2.5)."""

from pathlib import Path

import httpx

from roomkey.security import apikeys
from tests.support.calls import calling
from tests.support.editor import editing
from tests.support.server import running_server


def listing_of(process: int) -> bytes:
    """What everybody on the machine can see of a process."""
    return Path(f"/proc/{process}/cmdline").read_bytes()


async def test_no_file_log_or_process_listing_contains_a_token(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    options = ("--data", str(folder), "--set", "log.level=debug", "--set", "log.access=true")
    async with running_server(*options, storage="file") as server, calling(server) as caller:
        id, first = await caller.session(metadata={"tab": 1})
        answer = await caller.http.put(f"/sessions/{id}/rotate", headers={"Authorization": f"Bearer {first}"})
        second = answer.json()["token"]
        bearer = {"X-Session-ID": second}
        ticket = (await caller.http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"]
        async with editing(f"{server.websocket_url}?ticket={ticket}", second) as editor:
            await editor.subscribe("plan")
            await editor.edit("plan", text="x")
        refused = await caller.http.get("/sessions/me", headers={"X-Session-ID": first[:-1]})
        await caller.put(id, "invalidate")
        gone = await caller.http.get("/sessions/me", headers=bearer)
        listing = listing_of(server.process.pid)
        await server.stop()
        left_behind = [path.read_bytes() for path in folder.rglob("*") if path.is_file()]

        assert (refused.status_code, gone.status_code) == (401, 410)
        secrets = [first[29:].encode(), second[29:].encode(), ticket.encode()]
        shown = [server.errors.encode(), listing, refused.content, gone.content, *left_behind]
        assert any(id.encode() in each for each in left_behind)
        assert not [secret for secret in secrets for each in shown if secret in each]


async def test_no_secret_that_is_used_in_any_way_is_in_what_a_server_writes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    key, digest = apikeys.mint()
    wrong = apikeys.mint()[0]
    environment = {"ROOMKEY_API_KEYS": f"ops:admin:{digest}"}
    # What is stored is not encrypted, so that it can be searched.
    options = (
        "--data",
        str(folder),
        "--set",
        "encryption.mode=off",
        "--set",
        "log.level=debug",
        "--set",
        "log.access=true",
    )
    running = running_server(*options, storage="file", dev=False, environment=environment)
    async with running as server, httpx.AsyncClient(base_url=server.url) as http:
        operator = {"Authorization": f"Bearer {key}"}
        body = {"user_id": "alice", "activate": True}
        token = (await http.post("/sessions", json=body, headers=operator)).json()["token"]
        bearer = {"Authorization": f"Bearer {token}"}
        tickets = [(await http.post("/sessions/me/tickets", headers=bearer)).json()["ticket"] for _ in range(2)]
        cookie = {"Cookie": f"__Host-roomkey={token}", "Origin": "https://elsewhere.example"}
        answers = [
            await http.get("/sessions/me", headers=bearer),
            await http.get("/sessions/me", headers={"X-Session-ID": token}),
            await http.get("/sessions/me", headers=cookie),
            await http.delete("/sessions/me", headers=cookie),
            await http.get("/sessions/me", headers={"Authorization": f"Basic {token}"}),
            await http.get("/sessions", headers={"Authorization": f"Bearer {wrong}"}),
            await http.get(f"/sessions/me?token={token}&ticket={tickets[0]}"),
            await http.get(f"/sessions/{token}", headers=operator),
            await http.get(f"/sessions?user_id={token}", headers=operator),
            await http.get(f"/audit?actor={key}", headers=operator),
            await http.post("/sessions", json={"user_id": "bob", "secret": token}, headers=operator),
            await http.post("/sessions", content=b'{"user_id": ' + token.encode(), headers=operator),
            await http.put(f"/sessions/{token[:28]}/suspend", json={"reason": "gone"}, headers=operator),
            await http.get("/sessions/me", headers=bearer),
        ]
        for path in ("/ws", "/yjs/plan", "/hocuspocus", "/elsewhere"):
            for query in (f"ticket={tickets[1]}", f"token={token}", f"access_token={token}"):
                handshake = {
                    "Connection": "Upgrade",
                    "Upgrade": "websocket",
                    "Sec-WebSocket-Version": "13",
                    "Sec-WebSocket-Key": "MDEyMzQ1Njc4OWFiY2RlZg==",
                }
                answers.append(await http.get(f"{path}?{query}", headers=handshake))
        # The audit log follows; what it has not read yet would not be searched.
        recorded = {"type": "session.suspended"}
        while not (await http.get("/audit", params=recorded, headers=operator)).json()["entries"]:
            pass
        listing = listing_of(server.process.pid)
        await server.stop()

    assert server.errors.count('"request"') + server.errors.count(" request ") >= len(answers) - 12
    secrets = [token[29:], key.removeprefix("rkey_"), wrong.removeprefix("rkey_"), *tickets]
    written = {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    written |= {"log": server.errors.encode(), "processes": listing}
    said = {str(answer.url): answer.content for answer in answers}
    assert b"session.suspended" in b"".join(written.values())
    places = written | said
    assert not [(secret, where) for secret in secrets for where, each in places.items() if secret.encode() in each]
