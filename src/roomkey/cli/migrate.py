"""``roomkey migrate``: brings the schema of a SQL database up to date, or says what it lacks."""

import asyncio
from typing import Annotated, Final

from cyclopts import Parameter

from roomkey.cli.outcome import Exit, print_json, print_table
from roomkey.cli.serve import Choices, Chosen
from roomkey.errors import ConfigurationError

SCHEMES: Final = ("postgresql://", "postgres://", "mysql://", "mariadb://", "sqlite://")


def migrate(
    url: Annotated[str | None, Parameter(help="Database; default: those of the configuration.")] = None,
    *,
    check: Annotated[bool, Parameter(help="Change nothing; exit code 1 if something is to be done.")] = False,
    choices: Chosen = None,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> Exit:
    """
    Bring the schema of the SQL databases up to date. Safe to run twice, from two machines at once, and beside servers.

    Servers of the version before go on working: a migration only adds.
    """
    urls = [url] if url is not None else _urls(choices or Choices())
    steps = [name for each in urls for name in asyncio.run(_migrate(each, check=check))]
    result = "to be applied" if check else "applied"
    if json:
        print_json([{"migration": name, "result": result} for name in steps])
    else:
        print_table(("migration", "result"), [(name, result) for name in steps] or [("none", "up to date")])
    return Exit.FAILED if check and steps else Exit.DONE


def _urls(choices: Choices) -> list[str]:
    storage = choices.load().storage
    locations = dict.fromkeys((storage.location, storage.documents_location))
    found = [each for each in locations if each.lower().startswith(SCHEMES)]
    if not found:
        raise ConfigurationError("no storage of the configuration is a SQL database, so there is nothing to migrate")
    return found


async def _migrate(url: str, *, check: bool) -> list[str]:
    from roomkey.backends.sql.database import Database  # noqa: PLC0415  # loads SQLAlchemy

    async with Database(url).unchecked() as database:
        return await database.pending_migrations() if check else await database.migrate()
