"""``roomkey groups …``: grants that many sessions have in common."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from cyclopts import App, Parameter

from roomkey.cli.grants import written
from roomkey.cli.outcome import EXIT_CODES
from roomkey.cli.target import Target, Where

app = App(
    "groups",
    help="Give groups their grants, which sessions name in theirs.",
    help_epilogue=EXIT_CODES,
    version_flags=(),
)


@app.command(name="list")
def list_groups(*, limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show the groups by name, a page at a time.

    Args:
        limit: How many at most, 1 to 500.
        cursor: Where the page before this one ended.
    """
    target = where or Target()
    wanted = {"limit": limit, "cursor": cursor}
    page = target.request("GET", "/groups", params={name: value for name, value in wanted.items() if value})
    columns = ("name", "grants", "changed_at", "changed_by")
    rows = [[group["name"], _line(group), group["changed_at"], group["changed_by"]] for group in page["groups"]]
    target.show_page(page, columns, rows)


@app.command
def show(name: str, *, where: Where = None) -> None:
    """Show a group."""
    _show(where, "GET", name)


@app.command(name="set")
def set_group(
    name: str, *, grant: Annotated[Sequence[str], Parameter(negative="--no-grants")], where: Where = None
) -> None:
    """
    Give a group its grants, and make it if there is none. Every session that names it has them at once.

    Args:
        name: As in team-7.
        grant: As in 'team-7/**:write'; may be repeated. The first that matches a document wins. --no-grants: nothing.
    """
    _show(where, "PUT", name, json={"grants": [written(text) for text in grant]})


@app.command
def delete(name: str, *, where: Where = None) -> None:
    """Forget a group: sessions that name it have nothing by it any more."""
    target = where or Target()
    target.request("DELETE", _path(name))
    target.show({"deleted": name})


def _show(where: Where, method: str, name: str, **request: Any) -> None:
    target = where or Target()
    group = target.request(method, _path(name), **request)
    target.show(group if target.json else {**group, "grants": _line(group)})


def _line(group: dict[str, Any]) -> str:
    return " ".join(f"{grant['documents']}:{grant['access']}" for grant in group["grants"])


def _path(name: str) -> str:
    return f"/groups/{quote(name, safe='')}"
