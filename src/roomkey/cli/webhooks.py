"""``roomkey webhooks …``: how endpoints stand, what was delivered; enable one again, replay a message."""

from typing import Any, cast
from urllib.parse import quote

from cyclopts import App

from roomkey.cli.outcome import EXIT_CODES, print_json, print_table
from roomkey.cli.target import Target, Where

app = App(
    "webhooks",
    help="Look at webhooks and their deliveries; enable one again; replay a message.",
    help_epilogue=EXIT_CODES,
    version_flags=(),
)


@app.command(name="list")
def list_webhooks(*, where: Where = None) -> None:
    """Show every webhook of the configuration, and how it stands."""
    target = where or Target()
    answer = target.request("GET", "/webhooks")
    if target.json:
        print_json(answer)
        return
    columns = ("name", "url", "state", "waiting", "delivered", "failed", "dropped")
    print_table(columns, [_row(each) for each in answer["webhooks"]])


@app.command
def show(name: str, *, where: Where = None) -> None:
    """Show one webhook."""
    target = where or Target()
    _show(target, target.request("GET", _path(name)))


@app.command
def deliveries(name: str, *, limit: int = 50, cursor: str | None = None, where: Where = None) -> None:
    """
    Show what became of messages lately, the newest first.

    Args:
        name: Which webhook.
        limit: How many.
        cursor: Where the page before ended.
    """
    target = where or Target()
    params: dict[str, Any] = {"limit": limit} | ({} if cursor is None else {"cursor": cursor})
    answer = target.request("GET", f"{_path(name)}/deliveries", params=params)
    if target.json:
        print_json(answer)
        return
    columns = ("at", "id", "type", "document", "state", "attempts", "status", "reason")
    print_table(columns, [["" if each[c] is None else str(each[c]) for c in columns] for each in answer["deliveries"]])


@app.command
def enable(name: str, *, where: Where = None) -> None:
    """Send to a webhook again that was disabled because its receiver answered 410."""
    target = where or Target()
    _show(target, target.request("PUT", f"{_path(name)}/enable"))


@app.command
def replay(name: str, id: str, *, where: Where = None) -> None:
    """
    Send a message once more.

    Args:
        name: Which webhook.
        id: Which message, as `deliveries` shows it.
    """
    target = where or Target()
    target.show(target.request("POST", f"{_path(name)}/deliveries/{quote(id, safe='')}/replay"))


def _show(target: Target, webhook: dict[str, Any]) -> None:
    if target.json:
        print_json(webhook)
        return
    figures: dict[str, Any] = webhook.pop("figures") or {}
    rows = [[name, _in_words(value)] for name, value in {**webhook, **figures}.items() if value is not None]
    print_table(("field", "value"), rows)


def _row(webhook: dict[str, Any]) -> list[str]:
    figures: dict[str, Any] = webhook["figures"] or {}
    state = "disabled" if webhook["disabled_at"] else "away" if figures.get("is_away") else "enabled"
    counts = [str(figures.get(name, "")) for name in ("waiting", "delivered", "failed", "dropped")]
    return [webhook["name"], webhook["url"], state, *counts]


def _in_words(value: Any) -> str:
    return ", ".join(cast("list[str]", value)) if isinstance(value, list) else str(value)


def _path(name: str) -> str:
    return f"/webhooks/{quote(name, safe='')}"
