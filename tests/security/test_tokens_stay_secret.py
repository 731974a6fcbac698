"""Whoever gets hold of what the server leaves behind does not get in (ASVS 5.0 16.2.5)."""

from pathlib import Path

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
