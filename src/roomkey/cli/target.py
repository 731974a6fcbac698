"""
Where the commands on sessions and documents go, and how their answers look.

Every command speaks REST: with ``--url`` to a running server, with ``--storage`` to the same application in this
process, on top of the storage itself.
"""

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import msgspec
from cyclopts import Parameter
from msgspec.structs import replace

from roomkey import config
from roomkey.cli.outcome import Advance, Exit, Failed, print_json, print_table, unseen
from roomkey.domain.access import Role
from roomkey.errors import Storage
from roomkey.node import Node
from roomkey.observability.logs import LogLevel, LogSettings, configure_events
from roomkey.security import apikeys
from roomkey.settings import SourcedValue

DEFAULT_URL: Final = "http://127.0.0.1:3000"
TIMEOUT_SECONDS: Final = 10.0

_EXIT_OF: Final = {401: Exit.DENIED, 403: Exit.DENIED, 503: Exit.AWAY}


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Target:
    """A running server, or a storage without one."""

    url: Annotated[str | None, Parameter(help=f"Running server; default: ROOMKEY_URL, or {DEFAULT_URL}.")] = None
    key: Annotated[str | None, Parameter(help="API key; ROOMKEY_KEY keeps it out of the list of processes.")] = None
    storage: Annotated[
        str | None, Parameter(help="Storage to use without a server, such as lmdb:///var/lib/roomkey.")
    ] = None
    documents: Annotated[
        str | None, Parameter(help="With --storage: storage of the documents, if they are kept elsewhere.")
    ] = None
    config: Annotated[Path | None, Parameter(help="With --storage: roomkey.toml with the other settings.")] = None
    json: Annotated[bool, Parameter(help="Print JSON.")] = False

    def request(self, method: str, path: str, **request: Any) -> Any:
        """The decoded answer to one request. Raises ``Failed`` with what the server said, if that was no."""
        content = self.fetch(method, path, **request)
        return msgspec.json.decode(content) if content else None

    def fetch(self, method: str, path: str, *, advance: Advance = unseen, **request: Any) -> bytes:
        """
        The body of the answer to one request. Raises as ``request``.

        ``advance`` is told how many bytes of it have arrived, and of how many if that is known.
        """
        return asyncio.run(self._fetch(method, path, advance, **request))

    def show(self, answer: Mapping[str, Any]) -> None:
        """Print an answer as it is, field by field."""
        if self.json:
            print_json(answer)
        else:
            print_table(("field", "value"), [[name, str(value)] for name, value in answer.items()])

    def show_page(
        self,
        page: Mapping[str, Any],
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        numeric: Sequence[str] = (),
    ) -> None:
        """Print a page of a list: for people as ``rows``, and how to get the next page."""
        if self.json:
            print_json(page)
            return
        print_table(columns, rows, numeric=numeric)
        if page["next_cursor"]:
            print(f"\nMore with --cursor {page['next_cursor']}")  # noqa: T201  # part of the answer

    async def _fetch(self, method: str, path: str, advance: Advance, **request: Any) -> bytes:
        content = bytearray()
        async with self._connected() as client:
            try:
                async with client.stream(method, path, **request) as response:
                    size = response.headers.get("content-length")
                    async for part in response.aiter_bytes():
                        content += part
                        advance(len(content), None if size is None else int(size))
            except httpx.TransportError as error:
                reason = str(error) or type(error).__name__
                raise Failed(f"no answer from {client.base_url}: {reason}", Exit.AWAY) from error
        if response.is_error:
            raise Failed(_problem(response.status_code, content), _EXIT_OF.get(response.status_code, Exit.FAILED))
        return bytes(content)

    @asynccontextmanager
    async def _connected(self) -> AsyncGenerator[httpx.AsyncClient]:
        if self.storage is not None:
            async with self._in_process(self.storage) as client:
                yield client
            return
        if self.documents is not None:
            raise Failed("--documents: a server knows where its documents are; it goes with --storage", Exit.USAGE)
        async with self._client() as client:
            yield client

    def _client(self) -> httpx.AsyncClient:
        url = self.url or os.environ.get("ROOMKEY_URL") or DEFAULT_URL
        key = self.key or os.environ.get("ROOMKEY_KEY")
        headers = {"authorization": f"Bearer {key}"} if key else {}
        try:
            return httpx.AsyncClient(base_url=url, headers=headers, timeout=TIMEOUT_SECONDS)
        except httpx.InvalidURL as error:
            raise Failed(f"--url: {url!r} is not a URL: {error}", Exit.USAGE) from None
        except UnicodeEncodeError:
            raise Failed("--key: an API key has ASCII characters only", Exit.USAGE) from None

    @asynccontextmanager
    async def _in_process(self, storage: str) -> AsyncGenerator[httpx.AsyncClient]:
        given = {"storage.url": SourcedValue(storage, "--storage")}
        if self.documents is not None:
            given["storage.documents"] = SourcedValue(self.documents, "--documents")
        chosen = config.load(self.config, given)
        # What was done, and what was refused, is said by the command itself.
        log = StringIO()
        configure_events(LogSettings(level=LogLevel.WARNING), log)

        async def show_the_unexpected(response: httpx.Response) -> None:
            if response.status_code == 500:
                sys.stderr.write(log.getvalue())

        token, digest = apikeys.mint()
        # A key of this process alone; its name is what the event log will say.
        key = apikeys.ApiKey("command-line", Role.ADMIN, digest)
        node = Node(replace(chosen, security=replace(chosen.security, api_keys=(key,))))
        transport = httpx.ASGITransport(node.app)
        headers = {"authorization": f"Bearer {token}"}
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(node.at_work())
            except Storage as error:
                raise Failed(str(error), Exit.USAGE) from error
            yield await stack.enter_async_context(
                httpx.AsyncClient(
                    transport=transport,
                    base_url="http://storage",
                    headers=headers,
                    event_hooks={"response": [show_the_unexpected]},
                )
            )


Where = Annotated[Target | None, Parameter(name="*")]


def _problem(status: int, content: bytes | bytearray) -> str:
    """What an RFC 9457 problem says, and about which field, in one line."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except msgspec.DecodeError:
        return f"the server answered {status}"
    detail = problem.get("detail") or problem.get("title") or f"the server answered {status}"
    code = problem.get("code")
    said = f"{detail} ({code})" if code else str(detail)
    flaws = [_flaw(flaw) for flaw in problem.get("errors") or ()]
    return f"{said}: {'; '.join(flaws)}" if flaws else said


def _flaw(flaw: Mapping[str, str]) -> str:
    where = flaw.get("parameter") or flaw.get("pointer", "").removeprefix("#/")
    return f"{where}: {flaw.get('detail')}" if where else str(flaw.get("detail"))
