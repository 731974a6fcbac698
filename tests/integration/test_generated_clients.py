"""Clients that generators make of the contract of a running server: they compile, and do what their users want."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from roomkey.api.app import EVERY_ROUTE
from tests.support.pages import ROOT, blocks
from tests.support.providers import CLIENTS, NODE
from tests.support.server import Server, lasting_server

PROGRAMS: Final = CLIENTS / "openapi"
PACKAGES: Final = CLIENTS / "node_modules"
PAGE: Final = ROOT / "docs" / "http.md"
SECONDS: Final = 120

needs_typescript = pytest.mark.skipif(
    NODE is None or not (PACKAGES / "openapi-typescript").exists(),
    reason="needs Node.js, and `npm ci` in tests/clients",
)
needs_generator = pytest.mark.skipif(
    find_spec("openapi_python_client") is None, reason="needs openapi-python-client; it is in requirements-dev.lock"
)


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """A server with every operation there is."""
    with lasting_server(arguments=("--set", "audit.record=on")) as server:
        yield server


@pytest.fixture(scope="module")
def key(server: Server) -> str:
    """A key of a service, as an application has it."""
    return httpx.post(f"{server.url}/keys", json={"name": "application", "role": "service"}).json()["secret"]


@pytest.fixture
def contract(server: Server, tmp_path: Path) -> Path:
    """The contract as the server answers it."""
    file = tmp_path / "openapi.json"
    file.write_bytes(httpx.get(f"{server.url}/openapi.json").content)
    return file


def run(*command: str | Path, folder: Path) -> str:
    """What a command says that succeeds, complaints included."""
    path = os.pathsep.join([str(PACKAGES / ".bin"), os.environ["PATH"]])
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def did(output: str) -> dict[str, Any]:
    """What a program says in its last line that it has done."""
    return json.loads(output.splitlines()[-1])


@needs_typescript
def test_what_openapi_typescript_makes_compiles_and_is_used(server: Server, key: str, contract: Path) -> None:
    folder = contract.parent
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "node_modules").symlink_to(PACKAGES)
    for name in ("use.ts", "tsconfig.json"):
        shutil.copy(PROGRAMS / name, folder)

    run("openapi-typescript", contract, "--output", "schema.d.ts", folder=folder)
    run("tsc", folder=folder)
    said = run("node", "use.js", server.url, key, folder=folder)

    assert did(said) == {
        "state": "active",
        "text": "Hello, world",
        "code": "version_mismatch",
        "then": "suspended",
        "listed": 1,
    }


@needs_generator
def test_what_openapi_python_client_makes_is_whole_and_is_used(server: Server, key: str, contract: Path) -> None:
    folder = contract.parent
    shutil.copy(PROGRAMS / "use.py", folder)
    (configuration,) = (block.text for block in blocks(PAGE) if block.language == "yaml")
    (folder / "roomkey.yaml").write_text(configuration)
    generator = (sys.executable, "-m", "openapi_python_client", "generate", "--meta", "none")

    warnings = run(*generator, "--path", contract, "--config", "roomkey.yaml", folder=folder)
    said = run(sys.executable, "use.py", server.url, key, folder=folder)

    paths = json.loads(contract.read_bytes())["paths"]
    operations = [operation for methods in paths.values() for operation in methods.values()]
    assert paths.keys() == {path.replace(":path}", "}") for path in EVERY_ROUTE}
    assert did(said) == {
        "operations": len(operations),
        "state": "active",
        "text": {"content": "Hello, world"},
        "code": "version_mismatch",
        "then": "suspended",
        "listed": 1,
    }
    assert "will not be generated" not in warnings
    assert "response will be omitted" not in warnings
