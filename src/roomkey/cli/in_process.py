"""The server's application in this process, on top of a storage."""

import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from io import StringIO
from pathlib import Path

from msgspec.structs import replace

from roomkey.observability import load_structlog_alone

load_structlog_alone()

from roomkey import config  # noqa: E402
from roomkey.cli.clients import AppClient  # noqa: E402
from roomkey.cli.outcome import Exit, Failed  # noqa: E402
from roomkey.domain.access import Role  # noqa: E402
from roomkey.errors import Storage  # noqa: E402
from roomkey.node import Node  # noqa: E402
from roomkey.observability.logs import configure_events  # noqa: E402
from roomkey.observability.settings import LogLevel, LogSettings  # noqa: E402
from roomkey.security import apikeys  # noqa: E402
from roomkey.settings import SourcedValue  # noqa: E402


@asynccontextmanager
async def client_of(storage: str, documents: str | None, file: Path | None) -> AsyncGenerator[AppClient]:
    """
    An administrator of ``storage``, and of ``documents`` if these are elsewhere, with the other settings of ``file``.

    Raises:
        ConfigurationError: As ``config.load``.
        Failed: If the storage cannot be opened.
    """
    given = {"storage.url": SourcedValue(storage, "--storage")}
    if documents is not None:
        given["storage.documents"] = SourcedValue(documents, "--documents")
    chosen = config.load(file, given)
    # What was done, and what was refused, is said by the command itself.
    log = StringIO()
    configure_events(LogSettings(level=LogLevel.WARNING), log)
    token, digest = apikeys.mint()
    # A key of this process alone; its name is what the event log will say.
    key = apikeys.ApiKey("command-line", Role.ADMIN, digest)
    others = [each for each in chosen.security.api_keys if each.name != key.name]
    node = Node(replace(chosen, security=replace(chosen.security, api_keys=(*others, key))))
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(node.at_work())
        except Storage as error:
            raise Failed(str(error), Exit.USAGE) from error
        headers = {"authorization": f"Bearer {token}"}
        yield AppClient(node.app, headers, on_failure=lambda: sys.stderr.write(log.getvalue()))
