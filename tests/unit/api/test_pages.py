"""Built pages: what is in the folder at the start, as it is, and nothing else."""

from pathlib import Path

import httpx
import pytest
from starlette.routing import Mount, Router
from starlette.types import ASGIApp

from roomkey.api.app import create_app
from roomkey.api.middleware import ProblemMiddleware
from roomkey.api.pages import BuiltPage
from roomkey.backends.memory import MemorySessionStorage
from roomkey.sessions.manager import SessionManager

SCRIPT = "assets/index-3f9c.js"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    built = tmp_path / "dist" / "demo"
    (built / "assets").mkdir(parents=True)
    (built / "index.html").write_text("<!doctype html><title>Demo</title>")
    (built / SCRIPT).write_text("export {};")
    (tmp_path / "dist" / "secret.html").write_text("not below the folder")
    return built


def client_of(app: ASGIApp) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://host")


def page_in(folder: Path) -> httpx.AsyncClient:
    return client_of(ProblemMiddleware(Router(BuiltPage("/demo", folder).routes())))


async def test_the_page_is_asked_for_each_time_and_sent_when_it_has_changed(folder: Path) -> None:
    async with page_in(folder) as client:
        first = await client.get("/demo/")
        second = await client.get("/demo/", headers={"if-none-match": first.headers["etag"]})
        other = await client.get("/demo/", headers={"if-none-match": '"other"'})

    assert first.text == "<!doctype html><title>Demo</title>"
    assert first.headers["content-type"] == "text/html; charset=utf-8"
    assert first.headers["cache-control"] == "no-cache"
    assert (second.status_code, second.content) == (304, b"")
    assert other.status_code == 200


async def test_assets_have_their_hash_in_their_name_and_are_kept(folder: Path) -> None:
    async with page_in(folder) as client:
        answer = await client.get(f"/demo/{SCRIPT}")

    assert answer.text == "export {};"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"


async def test_the_page_may_run_its_own_scripts_and_no_others(folder: Path) -> None:
    async with page_in(folder) as client:
        policy = (await client.get("/demo/")).headers["content-security-policy"]

    assert "default-src 'self';" in policy
    assert "script" not in policy
    assert "frame-ancestors 'none'" in policy


async def test_without_its_last_slash_the_address_leads_there_wherever_it_is_mounted(folder: Path) -> None:
    routes = BuiltPage("/demo", folder).routes()
    async with client_of(Router([Mount("/rooms", Router(routes))])) as client:
        answer = await client.get("/rooms/demo?user=Ada", follow_redirects=True)

    assert answer.url == "http://host/rooms/demo/?user=Ada"
    assert answer.status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "index.html",
        "assets",
        "assets/",
        "other.js",
        "../secret.html",
        "..%2fsecret.html",
        "assets/..%2f..%2fsecret.html",
    ],
)
async def test_nothing_else_exists(folder: Path, path: str) -> None:
    async with page_in(folder) as client:
        answer = await client.get(f"/demo/{path}")

    assert answer.status_code == 404


async def test_it_can_only_be_read(folder: Path) -> None:
    async with page_in(folder) as client:
        head = await client.head("/demo/")
        posts = [await client.post(path) for path in ("/demo", "/demo/")]

    assert (head.status_code, head.content) == (200, b"")
    assert [post.status_code for post in posts] == [405, 405]
    assert posts[0].headers["allow"] == "GET, HEAD"


async def test_a_page_that_was_not_built_says_how_to_build_it(tmp_path: Path) -> None:
    async with page_in(tmp_path / "dist") as client:
        answer = await client.get("/demo/")

    assert answer.status_code == 503
    assert "hatch_build.py" in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]


async def test_the_demo_is_only_there_in_development() -> None:
    sessions = SessionManager(MemorySessionStorage())

    async with client_of(create_app(sessions)) as client, client_of(create_app(sessions, dev=True)) as developer:
        statuses = [(await each.get("/demo")).status_code for each in (client, developer)]

    assert statuses == [404, 307]
