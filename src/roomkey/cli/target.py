"""
Where the commands on sessions and documents go, and how their answers look.

Every command speaks REST: with ``--url`` to a running server, with ``--storage`` to the same application in this
process, on top of the storage itself.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlencode

import msgspec
from cyclopts import Parameter

from roomkey.cli.clients import TIMEOUT_SECONDS, Client, Content, Request
from roomkey.cli.outcome import Advance, Exit, Failed, print_json, print_table, unseen

DEFAULT_URL: Final = "http://127.0.0.1:3000"

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
        """The decoded answer to one request. Raises as ``fetch``."""
        content = self.fetch(method, path, **request)
        return msgspec.json.decode(content) if content else None

    def fetch(  # as requests are
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        content: Content = None,
        timeout: float = TIMEOUT_SECONDS,
        advance: Advance = unseen,
    ) -> bytes:
        """
        The body of the answer to one request.

        ``advance`` is told how many bytes of it have arrived, and of how many if that is known.

        Raises:
            Failed: With what the server said, if that was no.
            Storage: If there is no answer.
        """
        given = dict(headers or {})
        if json is not None:
            content, given["content-type"] = msgspec.json.encode(json), "application/json"
        whole = f"{path}?{urlencode(params)}" if params else path
        return asyncio.run(self._fetch(Request(method, whole, given, content, timeout, advance=advance)))

    def check_server(self, what: str) -> None:
        """
        Raise unless the command goes to a running server, which alone knows ``what``.

        Raises:
            Failed: If it goes to a storage.
        """
        if self.storage is not None:
            raise Failed(f"--storage: only a running server knows {what}: name it with --url", Exit.USAGE)

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

    async def _fetch(self, request: Request) -> bytes:
        async with self.connected() as client:
            answer = await client.call(request)
        if answer.status >= 400:
            raise Failed(_problem(answer.status, answer.content), _EXIT_OF.get(answer.status, Exit.FAILED))
        return answer.content

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Client]:
        """What requests are sent with, until this is left."""
        if self.storage is not None:
            from roomkey.cli.in_process import client_of  # noqa: PLC0415  # loads the server, which others run

            async with client_of(self.storage, self.documents, self.config) as client:
                yield client
            return
        if self.documents is not None:
            raise Failed("--documents: a server knows where its documents are; it goes with --storage", Exit.USAGE)
        from roomkey.cli.http_client import HttpClient  # noqa: PLC0415  # help is shown without it

        url = self.url or os.environ.get("ROOMKEY_URL") or DEFAULT_URL
        key = self.key or os.environ.get("ROOMKEY_KEY") or ""
        if not key.isascii():
            raise Failed("--key: an API key has ASCII characters only", Exit.USAGE)
        try:
            client = HttpClient(url, {"authorization": f"Bearer {key}"} if key else {})
        except ValueError as error:
            raise Failed(f"--url: {url!r} is not a URL: {error}", Exit.USAGE) from None
        async with client:
            yield client


Where = Annotated[Target | None, Parameter(name="*")]


def show_disconnected(target: Target, path: str, reason: str | None) -> None:
    """Disconnect whoever is at ``path``, and say how many connections that were."""
    answer = target.request("DELETE", path, params={} if reason is None else {"reason": reason})
    if target.json:
        print_json(answer)
    else:
        target.show({"disconnected": answer["disconnected"]})
    tell_silent(answer)


def tell_silent(answer: Mapping[str, Any]) -> None:
    """
    Say that nodes have not answered.

    Raises:
        Failed: If so: what was printed is not all.
    """
    if nodes := answer["silent_nodes"]:
        raise Failed(f"no answer came from {', '.join(nodes)}: try again", Exit.AWAY)


def _problem(status: int, content: bytes | bytearray) -> str:
    """What an RFC 9457 problem says, and about which field, in one line."""
    try:
        problem: dict[str, Any] = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return f"the server answered {status}"
    detail = problem.get("detail") or problem.get("title") or f"the server answered {status}"
    code = problem.get("code")
    said = f"{detail} ({code})" if code else str(detail)
    flaws = [_flaw(flaw) for flaw in problem.get("errors") or ()]
    return f"{said}: {'; '.join(flaws)}" if flaws else said


def _flaw(flaw: Mapping[str, str]) -> str:
    where = flaw.get("parameter") or flaw.get("pointer", "").removeprefix("#/")
    return f"{where}: {flaw.get('detail')}" if where else str(flaw.get("detail"))
