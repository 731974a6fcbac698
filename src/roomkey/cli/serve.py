"""``roomkey serve`` and ``roomkey config``: run the server, or show how it would be run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from roomkey import config
from roomkey.cli.outcome import Exit, Failed, print_json, print_table
from roomkey.config import Config
from roomkey.observability.logs import LogFormat, LogLevel
from roomkey.settings import SourcedValue


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Choices:
    """What the command line says about the configuration; ``--set`` reaches every setting."""

    config: Annotated[Path | None, Parameter(help="The file; ROOMKEY_CONFIG, or else ./roomkey.toml.")] = None
    host: Annotated[str | None, Parameter(help="Where to listen.")] = None
    port: Annotated[int | None, Parameter(help="0 lets the system choose.")] = None
    dev: Annotated[bool, Parameter(help="Let anyone on this machine do anything.")] = False
    storage: Annotated[str | None, Parameter(help="memory, file, or a URL such as lmdb:///var/lib/roomkey.")] = None
    data: Annotated[Path | None, Parameter(help="The directory of --storage file.")] = None
    tls_cert: Annotated[Path | None, Parameter(help="Certificate chain, PEM.")] = None
    tls_key: Annotated[Path | None, Parameter(help="Its private key, PEM.")] = None
    tls_client_ca: Annotated[Path | None, Parameter(help="Demand client certificates of this authority.")] = None
    log_level: LogLevel | None = None
    log_format: LogFormat | None = None
    set: Annotated[Sequence[str], Parameter(help="Any setting, as in sessions.cap=3; may be repeated.")] = ()

    def load(self, *, listening: bool = False) -> Config:
        """The configuration that holds, and may be listened with. Raises ``ConfigurationError``."""
        return config.load(self.config, self.overrides(), listening=listening)

    def overrides(self) -> dict[str, SourcedValue]:
        """What was said, by the names of the settings."""
        said = {
            "server.host": ("--host", self.host),
            "server.port": ("--port", self.port),
            "server.dev": ("--dev", self.dev or None),
            "storage.url": ("--storage", self.storage),
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
        given = {name: SourcedValue(value, flag) for name, (flag, value) in said.items() if value is not None}
        return given | dict(map(_assignment, self.set))


Chosen = Annotated[Choices | None, Parameter(name="*")]


def serve(*, choices: Chosen = None) -> int:
    """
    Run the server until SIGINT or SIGTERM.

    On the first signal open sockets are drained and requests finished; a second one ends it at once. Without
    API keys the server listens on this machine only.
    """
    chosen = (choices or Choices()).load(listening=True)
    from roomkey import server  # noqa: PLC0415  # `roomkey config` does not need it, nor does a mistake

    return server.serve(chosen)


def show_config(*, choices: Chosen = None, json: bool = False) -> None:
    """
    Show every setting, its value, and where that came from. Secrets are hidden.

    Args:
        json: Print JSON.
    """
    settings = config.describe((choices or Choices()).load())
    if json:
        print_json(settings)
    else:
        print_table(("setting", "value", "from"), [(line.name, line.value, line.source) for line in settings])


def _assignment(text: str) -> tuple[str, SourcedValue]:
    name, equals, value = text.partition("=")
    section, dot, rest = name.partition(".")
    if not equals or not dot or section not in config.SECTIONS or not rest:
        raise Failed(f"--set: {text!r} is not a setting and its value, as in sessions.cap=3", Exit.USAGE)
    return name, SourcedValue(value, "--set", as_text=True)
