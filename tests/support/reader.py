"""
A reader of the documentation who tries everything on a page, in its order, with one server and one terminal.

Python shares names from block to block, and commands a shell. What the pages call ``localhost:3000`` is a server that
was started as ``roomkey serve --dev``; ``PLACES`` has the other names that mean something else here.
"""

import ast
import asyncio
import inspect
import json
import os
import re
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import pytest

from roomkey.config import load
from tests.support.certificates import make_certificates
from tests.support.pages import ROOT, Block, Command, blocks, commands
from tests.support.providers import CLIENTS, NODE, needs_providers
from tests.support.server import Server, running_server
from tests.support.shell import Shell, open_shell

PATIENCE_SECONDS: Final = 30

TERMINAL: Final = frozenset({"console", "sh", "bash"})

RUN: Final = TERMINAL | {"python", "js", "json", "toml"}
"""Languages whose blocks are tried; a block in another one must be among those that are not."""

REDIS: Final = "redis://localhost:6379"
"""A Redis that commands in a terminal need."""

needs_a_terminal = pytest.mark.skipif(
    not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl, as its readers have"
)


_CONNECTS: Final = re.compile(r"^(?:const|let) (?:provider|socket)\b", re.MULTILINE)
"""A snippet that leaves one of these behind must work with the server; others are functions, and need only be code."""


class Reader:
    """Somebody in a folder of their own, with a server."""

    def __init__(self, folder: Path, server: Server, shell: Shell, redis: str | None = None) -> None:
        self._folder = folder
        self._server = server
        self._shell = shell
        self._names: dict[str, Any] = {"__name__": "__main__", "server_url": server.url}
        # The longer of two names first.
        self._places = {
            "https://rooms.example.com": server.url,
            "wss://rooms.example.com": server.url.replace("http", "ws", 1),
            "localhost:3000": f"127.0.0.1:{server.port}",
            "127.0.0.1:3000": f"127.0.0.1:{server.port}",
            "0.0.0.0": "127.0.0.1",
            "/var/lib/roomkey": str(folder / "var"),
        }
        if redis is not None:
            self._places[REDIS] = redis

    async def try_out(self, block: Block, *, except_for: Collection[str] = ()) -> None:
        """Run a block, but for these commands. Raises what is wrong with it, mostly ``AssertionError``."""
        match block.language:
            case "python":
                await self._python(block)
            case "js":
                await self._javascript(block)
            case "json":
                json.loads(block.text)
            case "toml":
                file = self._folder / "roomkey.toml"
                file.write_text(self._here(block.text), encoding="utf-8")
                load(file, environment={}, listening=True)
            case _:
                for command in commands(block):
                    if command.text not in except_for:
                        await self._command(command, block)

    async def _command(self, command: Command, block: Block) -> None:
        code, output = await self._shell.run(self._here(command.text))
        if command.answer:
            expected = self._here(command.answer)
            assert answers(output, expected), f"{block}: {command.text}\n{output}\nand not\n{expected}"
        else:
            assert code == 0, f"{block}: {command.text}\nexit code {code}\n{output}"

    async def _python(self, block: Block) -> None:
        # An empty line for each one before it, so that a traceback names the line of the page.
        code = "\n" * (block.line - 1) + self._here(block.text)
        compiled = compile(code, block.page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        result = eval(compiled, self._names)
        if inspect.iscoroutine(result):
            await result

    async def _javascript(self, block: Block) -> None:
        assert NODE is not None
        module = self._folder / f"{Path(block.page).stem}-{block.line}.mjs"
        seen = ", ".join(f"{name}: typeof {name} === 'undefined' ? null : {name}" for name in ("provider", "socket"))
        reader = (CLIENTS / "reader.mjs").as_uri()
        works = f"await works({{ {seen} }});" if _CONNECTS.search(block.text) else "process.exit(0);"
        code = f"import {{ works }} from '{reader}';\n{self._here(block.text)}\n{works}\n"
        module.write_text(code, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            *(NODE, str(module)), stdout=PIPE, stderr=STDOUT, env={**os.environ, "TOKEN": await self._token()}
        )
        async with asyncio.timeout(PATIENCE_SECONDS):
            output, _ = await process.communicate()
        assert process.returncode == 0, f"{block}:\n{output.decode()}"

    async def _token(self) -> str:
        async with httpx.AsyncClient(base_url=self._server.url) as http:
            created = await http.post("/sessions", json={"user_id": "reader", "activate": True})
        return str(created.json()["token"])

    def _here(self, text: str) -> str:
        for place, here in self._places.items():
            text = text.replace(place, here)
        return text


@asynccontextmanager
async def reading(folder: Path, *, redis: str | None = None) -> AsyncGenerator[Reader]:
    """
    A reader in ``folder``, which is as a checkout is after ``script/install``, and has a certificate.

    ``redis`` is where the Redis is, if the reader has one.
    """
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    if CLIENTS.joinpath("node_modules").exists():
        (folder / "node_modules").symlink_to(CLIENTS / "node_modules")
    certificates = make_certificates(folder)
    certificates.certificate.rename(folder / "cert.pem")
    certificates.key.rename(folder / "key.pem")
    async with (
        running_server("--data", str(folder / "data"), storage="file") as server,
        open_shell(folder, {"ROOMKEY_URL": server.url}) as shell,
    ):
        yield Reader(folder, server, shell, redis)


def answers(output: str, expected: str) -> bool:
    """Whether a program has said what the page shows: ``…`` stands for anything, and any blanks for one blank."""
    said, shown = (" ".join(text.split()) for text in (output, expected))
    return re.fullmatch(".*".join(map(re.escape, shown.split("…"))), said) is not None


def needs_redis(page: Path) -> bool:
    """Whether a command on the page needs a Redis."""
    return any(REDIS in block.text for block in blocks(page) if block.language in TERMINAL)


def needs(page: Path) -> list[pytest.MarkDecorator]:
    """What must be there for the blocks of a page."""
    languages = {block.language for block in blocks(page)}
    return [needs_a_terminal, *([needs_providers] if "js" in languages else [])]
