"""``roomkey serve`` and ``roomkey config``: run the server, or show how it would be run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from roomkey import config
from roomkey.cli.outcome import Exit, Failed, print_bytes, print_json, print_table
from roomkey.config import Config
from roomkey.observability import load_structlog_alone
from roomkey.observability.settings import LogFormat, LogLevel
from roomkey.settings import SourcedValue


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choices:
    """The settings that are given on the command line; ``--set`` reaches all of them."""

    config: Annotated[Path | None, Parameter(help="File with settings; default: ROOMKEY_CONFIG, or roomkey.toml.")] = (
        None
    )
    host: Annotated[str | None, Parameter(help="Address to listen on.")] = None
    port: Annotated[int | None, Parameter(help="Port to listen on; 0 lets the system choose.")] = None
    workers: Annotated[
        str | None, Parameter(help="Number of processes that serve the port, or auto: one per core.")
    ] = None
    dev: Annotated[bool, Parameter(help="Allow everything to everyone on this machine, and serve the demo.")] = False
    storage: Annotated[
        str | None, Parameter(help="Storage of sessions: memory, file, or a URL such as lmdb:///var/lib/roomkey.")
    ] = None
    documents: Annotated[str | None, Parameter(help="Storage of documents, if it is not that of sessions.")] = None
    data: Annotated[Path | None, Parameter(help="Directory of the storage called file.")] = None
    tls_cert: Annotated[Path | None, Parameter(help="File with the certificate chain (PEM).")] = None
    tls_key: Annotated[Path | None, Parameter(help="File with the private key of the certificate (PEM).")] = None
    tls_client_ca: Annotated[
        Path | None, Parameter(help="File with the authority that must have signed the clients' certificates (PEM).")
    ] = None
    log_level: Annotated[LogLevel | None, Parameter(help="Lowest level that is logged.")] = None
    log_format: Annotated[LogFormat | None, Parameter(help="Format of the log; auto: console on a terminal.")] = None
    set: Annotated[Sequence[str], Parameter(help="Any setting, such as sessions.cap=3; may be repeated.")] = ()

    def load(self, *, listening: bool = False) -> Config:
        """The effective configuration. Raises ``ConfigurationError`` as ``config.load``."""
        return config.load(self.config, self.overrides(), listening=listening)

    def overrides(self) -> dict[str, SourcedValue]:
        """The given values by the names of the settings."""
        flags = {
            "server.host": ("--host", self.host),
            "server.port": ("--port", self.port),
            "server.dev": ("--dev", self.dev or None),
            "storage.url": ("--storage", self.storage),
            "storage.documents": ("--documents", self.documents),
            "storage.directory": ("--data", None if self.data is None else str(self.data)),
            "server.tls_cert": ("--tls-cert", None if self.tls_cert is None else str(self.tls_cert)),
            "server.tls_key": ("--tls-key", None if self.tls_key is None else str(self.tls_key)),
            "server.tls_client_ca": (
                "--tls-client-ca",
                None if self.tls_client_ca is None else str(self.tls_client_ca),
            ),
            "log.level": ("--log-level", self.log_level),
            "log.format": ("--log-format", self.log_format),
        }
        given = {name: SourcedValue(value, flag) for name, (flag, value) in flags.items() if value is not None}
        if self.workers is not None:
            given["server.workers"] = SourcedValue(self.workers, "--workers", as_text=True)
        return given | dict(map(_assignment, self.set))


Chosen = Annotated[Choices | None, Parameter(name="*")]


def serve(*, choices: Chosen = None) -> int:
    """
    Run the server until SIGINT or SIGTERM.

    The first signal drains open sockets and lets requests finish; the second stops the server at once. Without
    API keys the server listens on this machine only. With several workers one process supervises the others, and
    starts those anew that die.
    """
    chosen = (choices or Choices()).load(listening=True)
    if (count := chosen.server.worker_count) > 1:
        from roomkey import workers  # noqa: PLC0415  # one process does not need it

        return workers.serve(chosen, count)
    load_structlog_alone()
    from roomkey import server  # noqa: PLC0415  # `roomkey config` does not need it, nor does a mistake

    return server.serve(chosen)


def show_config(*, choices: Chosen = None, json: bool = False) -> None:
    """
    Show every setting, its value and its source. Secrets are hidden.

    Args:
        json: Print JSON.
    """
    settings = config.describe((choices or Choices()).load())
    if json:
        print_json(settings)
    else:
        print_table(("setting", "value", "from"), [(line.name, line.value, line.source) for line in settings])


def show_settings(
    words: str = "",
    *,
    markdown: Annotated[bool, Parameter(help="Print the page of the documentation.")] = False,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> None:
    """
    Say what can be set: names, types, defaults, variables, and what each setting is for.

    Args:
        words: Words that a setting must mention to be shown.
    """
    from roomkey import settings_reference as reference  # noqa: PLC0415  # reads source files

    if markdown:
        print_bytes(reference.markdown().encode())
        return
    found = [entry for entry in reference.entries() if entry.mentions(words.split())]
    if not found:
        raise Failed(f"no setting mentions {words}")
    if json:
        print_json(found)
        return
    rows = [(entry.name, entry.type.replace("`", ""), entry.default, entry.meaning.replace("`", "")) for entry in found]
    print_table(("setting", "type", "default", "meaning"), rows)


def _assignment(text: str) -> tuple[str, SourcedValue]:
    name, equals, value = text.partition("=")
    section, dot, rest = name.partition(".")
    if not equals or not dot or section not in config.SECTIONS or not rest:
        raise Failed(f"--set: {text!r} is not a setting and its value, as in sessions.cap=3", Exit.USAGE)
    return name, SourcedValue(value, "--set", as_text=True)
