"""The audit log from the outside: over HTTP, on the command line, and by a verifier that others have written."""

import asyncio
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from msgspec.structs import replace
from starlette.types import ASGIApp

from roomkey.api.app import create_app
from roomkey.api.security import Security
from roomkey.audit import proofs
from roomkey.audit.log import AuditLog
from roomkey.audit.notes import note, verifier_key
from roomkey.audit.settings import WitnessSettings
from roomkey.audit.stored import SPACE
from roomkey.audit.tiles import bundle_of
from roomkey.backends.memory import MemorySessionStorage
from roomkey.backends.memory.objects import MemoryObjectStore
from roomkey.cli import main
from roomkey.domain.access import Role
from roomkey.keys import KeyRegistry
from roomkey.security.apikeys import ApiKey, ApiKeys, mint
from roomkey.sessions.manager import SessionManager
from tests.support.audit import LOG_KEY, ORIGIN, SETTINGS, entry, filled_log, new_log
from tests.support.rest import call, served

GO = shutil.which("go")
GO_PACKAGES = Path("/usr/share/gocode")
VERIFIER = Path(__file__).parents[1] / "clients" / "go" / "verify.go"

needs_go = pytest.mark.skipif(
    GO is None or not (GO_PACKAGES / "src/golang.org/x/mod/sumdb").exists(),
    reason="needs Go and golang.org/x/mod (golang-go, golang-golang-x-mod-dev)",
)

ADMIN, ADMIN_DIGEST = mint()
SERVICE, SERVICE_DIGEST = mint()
KEYS = ApiKeys([ApiKey("operator", Role.ADMIN, ADMIN_DIGEST), ApiKey("backend", Role.SERVICE, SERVICE_DIGEST)])


def an_app(log: AuditLog, *, public_tree: bool = False) -> ASGIApp:
    sessions = SessionManager(MemorySessionStorage())
    keys = KeyRegistry(KEYS, MemoryObjectStore(), sessions.clock)
    return create_app(sessions, audit=log, public_tree=public_tree, security=Security(keys=keys))


def bearer(token: str) -> Sequence[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]


# --- over HTTP ----------------------------------------------------------------------------------------


async def test_the_files_of_the_log_are_served_to_those_who_may_read_it() -> None:
    log = await filled_log(300)
    app = an_app(log)

    answer = await call(app, "GET", "/audit/log/checkpoint", headers=bearer(ADMIN))
    assert (answer.status, answer.header("cache-control")) == (200, "no-store")
    assert answer.header("content-type") == "text/plain; charset=utf-8"
    assert note(answer.body).verified([LOG_KEY])
    for path, content in {
        "/audit/log/tile/0/000": await log.tile(0, 0),
        "/audit/log/tile/0/001.p/44": await log.tile(0, 1, 44),
        "/audit/log/tile/1/000.p/1": await log.tile(1, 0, 1),
        "/audit/log/tile/entries/000": await log.bundle(0),
        "/audit/log/tile/entries/001.p/44": await log.bundle(1, 44),
    }.items():
        answer = await call(app, "GET", path, headers=bearer(ADMIN))
        assert (answer.status, answer.body) == (200, content)
        assert answer.header("content-type") == "application/octet-stream"
        assert answer.header("cache-control") == "private, max-age=31536000, immutable"


PATHS = (
    "/audit/log/checkpoint",
    "/audit/log/tile/0/000",
    "/audit/keys",
    "/audit/log/tile/entries/000",
    "/audit/0/receipt",
)


@pytest.mark.parametrize("path", PATHS)
async def test_nobody_else_may_read_it(path: str) -> None:
    app = an_app(await filled_log(300))

    assert (await call(app, "GET", path)).code == "credentials_missing"
    assert (await call(app, "GET", path, headers=bearer(SERVICE))).code == "forbidden"
    assert (await call(app, "GET", path, headers=bearer(ADMIN))).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_head_and_hashes_may_be_public_and_entries_never_are(path: str) -> None:
    app = an_app(await filled_log(300), public_tree=True)

    answer = await call(app, "GET", path)

    if "entries" in path or "receipt" in path:
        assert answer.code == "credentials_missing"
        return
    assert answer.status == 200
    expected = "public, max-age=31536000, immutable" if "tile" in path else "no-store"
    assert answer.header("cache-control") == expected


@pytest.mark.parametrize(
    "path",
    [
        "/audit/log/tile/0/002",
        "/audit/log/tile/0/001.p/45",
        "/audit/log/tile/0/001",
        "/audit/log/tile/9/000",
        "/audit/log/tile/0/../../checkpoint",
        "/audit/log/tile/0/%2e%2e/000",
        "/audit/log/tile/entries/002",
        "/audit/log/tile/entries/x000/001",
        "/audit/log/tile/0",
        "/audit/log/tile/",
        "/audit/log/",
        "/audit/minus/receipt",
        "/audit/-1/receipt",
        "/audit/1e3/receipt",
        "/audit/99999999999999999999999999/receipt",
    ],
)
async def test_what_is_no_file_does_not_exist(path: str) -> None:
    answer = await call(an_app(await filled_log(300)), "GET", path, headers=bearer(ADMIN))

    assert (answer.status, answer.code) == (404, "not_found")


async def test_a_receipt_is_had_when_its_entry_is_published() -> None:
    log = await filled_log(3)
    app = an_app(log)
    await log.append([b"new"])

    answer = await call(app, "GET", "/audit/3/receipt", headers=bearer(ADMIN))
    assert (answer.status, answer.code, answer.header("retry-after")) == (404, "not_published", "1")

    await log.integrate()
    answer = await call(app, "GET", "/audit/3/receipt", headers=bearer(ADMIN))
    assert proofs.verify(proofs.receipt(answer.body), keys=[LOG_KEY]).entry == b"new"


async def test_denied_entries_are_named_as_such() -> None:
    log = await filled_log(300)
    await log.retain(300)

    answer = await call(an_app(log), "GET", "/audit/log/tile/entries/000", headers=bearer(ADMIN))

    assert (answer.status, answer.code) == (404, "not_retained")


async def test_the_keys_are_told() -> None:
    answer = await call(an_app(await filled_log(1)), "GET", "/audit/keys", headers=bearer(ADMIN))

    assert answer.json == {"origin": ORIGIN, "keys": [str(LOG_KEY)]}
    assert verifier_key(answer.json["keys"][0]) == LOG_KEY


# --- the verifier of others ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def go_verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    assert GO is not None
    program = tmp_path_factory.mktemp("go") / "verify"
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GO_PACKAGES), "GOFLAGS": ""}
    subprocess.run([GO, "build", "-o", program, VERIFIER], check=True, env=environment)
    return program


def by_go(program: Path, url: str, *arguments: str, key: str = str(LOG_KEY)) -> tuple[int, str]:
    done = subprocess.run(
        [program, f"{url}/audit/log", key, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CREDENTIAL": ADMIN},
    )
    return done.returncode, done.stdout + done.stderr


@needs_go
def test_a_verifier_that_others_have_written_accepts_the_log(go_verifier: Path, tmp_path: Path) -> None:
    log = asyncio.run(filled_log(700))
    with served(an_app(log)) as url:
        (tmp_path / "old").write_bytes(httpx.get(f"{url}/audit/log/checkpoint", headers=dict(bearer(ADMIN))).content)
        asyncio.run(_grow(log, 700, 1500))

        code, said = by_go(go_verifier, url, str(tmp_path / "old"), "0", "255", "256", "700", "1499")

    assert code == 0, said
    assert said.splitlines() == [
        "1500 entries continue 700",
        *(f'entry {index} of 1500 is "entry {index}"' for index in (0, 255, 256, 700, 1499)),
    ]


@needs_go
def test_it_refuses_what_was_tampered_with(go_verifier: Path, tmp_path: Path) -> None:
    objects = MemoryObjectStore()
    log = asyncio.run(filled_log(700, objects))
    other = asyncio.run(filled_log(3))
    (tmp_path / "fork").write_text(str(asyncio.run(_with(other, b"x"))))
    with served(an_app(log)) as url:
        assert by_go(go_verifier, url, "3")[0] == 0
        code, said = by_go(go_verifier, url, str(tmp_path / "fork"))
        assert (code, "tree" in said.lower() or "proof" in said.lower()) == (1, True)
        code, said = by_go(go_verifier, url, "3", key=str(new_log(settings=SETTINGS).keys[0]).replace("rooms", "halls"))
        assert code == 1

        name = "log/entries/0000000000000000000"
        forged = bundle_of([entry(0), entry(1), entry(2), b"forged", *(entry(number) for number in range(4, 256))])
        asyncio.run(objects.commit(SPACE, {name: forged}))
        code, said = by_go(go_verifier, url, "3")
        assert code == 1, said
        assert "entry 3" in said


async def _grow(log: AuditLog, first: int, end: int) -> None:
    await log.append([entry(number) for number in range(first, end)])
    await log.integrate()


async def _with(log: AuditLog, more: bytes) -> object:
    await log.append([more])
    await log.integrate()
    return await log.checkpoint()


# --- on the command line ------------------------------------------------------------------------------


def test_the_command_line_verifies_a_log_from_its_address(
    monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    objects = MemoryObjectStore()
    log = asyncio.run(filled_log(300, objects))
    monkeypatch.setenv("ROOMKEY_KEY", ADMIN)
    with served(an_app(log)) as url:
        from_url = ["audit", "verify", "--from-url", f"{url}/audit/log", "--url", url]
        assert main([*from_url, "--key", str(LOG_KEY), "--json"]) == 0
        report = json.loads(capfdbinary.readouterr().out)
        assert (report["sound"], report["entries"], report["size"], report["origin"]) == (True, 300, 300, ORIGIN)
        assert main(["audit", "verify", "--url", url]) == 0
        assert b"put another in its place" in capfdbinary.readouterr().err

        assert main(["audit", "keys", "--url", url, "--json"]) == 0
        assert json.loads(capfdbinary.readouterr().out)["keys"] == [str(LOG_KEY)]
        assert main(["audit", "receipt", "7", "--url", url]) == 0
        receipt = tmp_path / "7.tlog-proof"
        receipt.write_bytes(capfdbinary.readouterr().out)

        asyncio.run(objects.commit(SPACE, {"log/entries/0000000000000000256": bundle_of([b"x"] * 44)}))
        assert main([*from_url, "--key", str(LOG_KEY), "--since", str(receipt)]) == 1
        assert b"entry 256" in capfdbinary.readouterr().out

        monkeypatch.delenv("ROOMKEY_KEY")
        assert main(["audit", "verify", "--url", url]) == 4
        capfdbinary.readouterr()

    assert main(["audit", "prove", str(receipt), "--key", str(LOG_KEY)]) == 0
    assert capfdbinary.readouterr().out == entry(7)
    receipt.write_bytes(receipt.read_bytes().replace(b"index 7", b"index 8"))
    assert main(["audit", "prove", str(receipt), "--key", str(LOG_KEY)]) == 1
    assert b"nothing is proven" in capfdbinary.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        ["verify", "--directory", "."],
        ["verify", "--key", "nonsense"],
        ["verify", "--since", "missing"],
        ["prove", "missing"],
        ["witness", "missing.toml"],
    ],
)
def test_what_cannot_be_is_said(
    arguments: list[str], capfdbinary: pytest.CaptureFixture[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(["audit", *arguments]) == 2
    assert capfdbinary.readouterr().err.startswith(b"roomkey: ")


# --- a witness ----------------------------------------------------------------------------------------


@contextmanager
def running_witness(folder: Path) -> Generator[WitnessSettings]:
    (folder / "witness.toml").write_text(
        f"""
        name = "witness.example.com/w1"
        key_file = "witness.key"
        storage = "lmdb://data"
        port = 0

        [[logs]]
        origin = "{ORIGIN}"
        keys = ["{LOG_KEY}"]
        """
    )
    command = [sys.executable, "-m", "roomkey", "audit", "witness", "witness.toml"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            _, key, _, _, url = process.stdout.readline().split()
            yield WitnessSettings(key=key, url=url)
        finally:
            process.terminate()
            assert process.wait(10) == 0


def test_a_witness_that_runs_signs_over_http(tmp_path: Path) -> None:
    with running_witness(tmp_path) as witness:
        log = asyncio.run(filled_log(5, settings=replace(SETTINGS, witnesses=(witness,), quorum=1)))
        signed = asyncio.run(_with(log, b"more"))

    assert [*note(str(signed)).verified([verifier_key(witness.key)])] == [verifier_key(witness.key)]
    log = asyncio.run(filled_log(1, settings=replace(SETTINGS, witnesses=(witness,))))
    assert "cannot be reached" in log.degradations()["audit witness witness.example.com/w1"]
