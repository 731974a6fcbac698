"""Importing the package loads nothing that its user did not ask for."""

import socket
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

HEAVY = ("starlette", "uvicorn", "picows", "lmdb", "structlog", "rich", "cyclopts", "httpx", "asyncio")


def modules_after(statement: str) -> set[str]:
    script = f"import sys\n{statement}\nprint(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    return set(result.stdout.split())


def test_importing_roomkey_loads_nothing_heavy() -> None:
    loaded = modules_after("import roomkey")

    assert loaded.isdisjoint(HEAVY)


def test_the_library_does_not_load_the_server() -> None:
    loaded = modules_after("from roomkey import SessionManager, MemorySessionStorage, SessionFilter")

    assert loaded.isdisjoint({"starlette", "uvicorn", "picows", "lmdb", "cyclopts", "httpx"})


SERVER = ("pycrdt", "starlette", "uvicorn", "picows", "uvloop", "structlog", "roomkey.node", "roomkey.server")
STORES = ("lmdb", "redis", "sqlalchemy", "aiosqlite", "asyncpg", "asyncmy")
PRINTING = ("rich", "markdown_it", "pygments", "httpx")
"""httpx because it loads a command line of its own."""


def modules_after_command(*arguments: str) -> set[str]:
    return modules_after(f"from roomkey.cli import main; main({arguments!r})")


def loaded_of(names: Iterable[str], loaded: set[str]) -> set[str]:
    return {name for name in names if name in loaded}


@pytest.mark.parametrize("arguments", [("--version",), ("--help",)])
def test_the_command_line_says_what_it_is_without_loading_what_it_does(arguments: tuple[str, ...]) -> None:
    loaded = modules_after_command(*arguments)

    assert not loaded_of(
        (*SERVER, *STORES, "httpx", "httpcore", "markdown_it", "pygments", "asyncio", "msgspec"), loaded
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "list"),
        ("sessions", "create", "alice"),
        ("documents", "list"),
        ("keys", "list"),
        ("audit", "keys"),
        ("audit", "tail"),
    ],
)
def test_a_command_for_a_running_server_loads_no_server_and_no_store(arguments: tuple[str, ...]) -> None:
    loaded = modules_after_command(*arguments, "--url", "http://127.0.0.1:1")

    assert "httpcore" in loaded
    assert not loaded_of((*SERVER, *STORES, *PRINTING, "roomkey.config"), loaded)


def test_the_effective_configuration_is_shown_without_the_parts_that_it_configures(tmp_path: Path) -> None:
    loaded = modules_after_command("config", "--storage", f"lmdb://{tmp_path}")

    assert "roomkey.config" in loaded
    assert not loaded_of((*SERVER, *STORES, *PRINTING, "asyncio", "jsonschema_rs", "cryptography"), loaded)


def test_keys_are_made_without_a_server() -> None:
    loaded = modules_after_command("keys", "generate", "backend")

    assert not loaded_of((*SERVER, *STORES, *PRINTING), loaded)


def test_a_server_loads_nothing_that_prints_tables() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:  # it says so when it has loaded everything
        port = str(taken.getsockname()[1])
        loaded = modules_after_command("serve", "--dev", "--storage", "memory", "--port", port)

    assert "roomkey.server" in loaded
    assert not loaded_of((*PRINTING, *STORES, "jsonschema_rs"), loaded)
