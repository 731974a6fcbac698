"""The smaller commands: the contract in OpenAPI, the benchmark, and new keys."""

import asyncio
from typing import Annotated

from cyclopts import App, Parameter
from msgspec.structs import asdict

from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, print_json, print_table
from roomkey.domain.access import Role
from roomkey.security import apikeys, masterkey

JsonFlag = Annotated[bool, Parameter(help="Print JSON.")]

keys = App("keys", help="Make keys.", help_epilogue=EXIT_CODES)


def openapi() -> None:
    """Print the HTTP contract as OpenAPI in JSON, as a server answers it at /openapi.json."""
    from roomkey.api.app import document  # noqa: PLC0415  # the other commands do not need it

    print_json(document())


def bench(*, count: int = 20_000, json: JsonFlag = False) -> None:
    """
    Measure how fast sessions are created, read, changed and deleted, in memory and in a temporary file.

    Args:
        count: How many sessions.
    """
    from roomkey import bench as benchmark  # noqa: PLC0415  # the other commands do not need it

    if count < 1:
        raise Failed("--count: there must be at least one session", Exit.USAGE)
    measured = [line for storage in benchmark.STORAGES for line in asyncio.run(benchmark.measure(storage, count))]
    if json:
        print_json([asdict(line) | {"per_second": round(line.per_second)} for line in measured])
        return
    columns = ("storage", "command", "callers", "sessions", "seconds", "per second")
    rows = [
        (
            line.storage,
            line.command,
            str(line.callers),
            f"{line.count:,}",
            f"{line.seconds:.3f}",
            f"{line.per_second:,.0f}",
        )
        for line in measured
    ]
    print_table(columns, rows, numeric=columns[2:])


@keys.command
def generate(name: str = "backend", *, role: Role = Role.SERVICE, master: bool = False, json: JsonFlag = False) -> None:
    """
    Make an API key and the lines that make a server accept it, or a master key. It is shown once.

    Args:
        name: Who events say did it.
        role: What the key is for: service, or admin, which may do everything.
        master: A master key instead, from which the server derives its others.
    """
    if master:
        key = masterkey.generate()
        print_json({"master_key": key}) if json else print_table(("ROOMKEY_MASTER_KEY",), [(key,)])
        return
    token, digest = apikeys.mint()
    try:
        apikeys.ApiKey(name, role, digest)
    except ValueError as error:
        raise Failed(f"--name: {error}", Exit.USAGE) from None
    if json:
        print_json({"key": token, "name": name, "role": role, "digest": digest})
        return
    print_table(("the key, shown once",), [(token,)])
    lines = f'\n[[security.api_keys]]\nname = "{name}"\nrole = "{role}"\ndigest = "{digest}"'
    print(f"\nIn roomkey.toml:{lines}\n\nOr: ROOMKEY_API_KEYS={name}:{role}:{digest}")  # noqa: T201  # the answer
