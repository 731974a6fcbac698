"""Importing the package loads nothing that its user did not ask for."""

import subprocess
import sys

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
