"""``roomkey access …``: who may do what in which document, and why; and having the application asked again."""

from typing import Any
from urllib.parse import quote

from cyclopts import App

from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, print_json, print_table
from roomkey.cli.target import Target, Where

app = App(
    "access",
    help="Say who may do what, and why; ask the application again.",
    help_epilogue=EXIT_CODES,
    version_flags=(),
)


@app.command
def show(document: str, *, user: str, where: Where = None) -> None:
    """
    Show what a user may do in a document, and why.

    Args:
        document: Which document; there need not be one of that name.
        user: Whose sessions are looked at.
    """
    target = where or Target()
    found: dict[str, Any] = target.request("GET", f"{_path(document)}/access", params={"user_id": user})
    if target.json:
        print_json(found)
        return
    rows = [[each["session_id"], each["access"] or "none", each["why"]] for each in found["sessions"]]
    print_table(("session", "access", "why"), [*rows, ["all together", found["access"] or "none", found["why"]]])


@app.command
def recheck(
    *, document: str | None = None, session: str | None = None, reason: str | None = None, where: Where = None
) -> None:
    """
    Ask the application again about everybody who is in a document, or about a session. Open sockets obey.

    Args:
        document: Which document.
        session: Which session; give one of the two.
        reason: What those are told who may do nothing any more.
    """
    if (document is None) == (session is None):
        raise Failed("give --document or --session, and not both", Exit.USAGE)
    path = f"/sessions/{quote(session, safe='')}" if session is not None else _path(document or "")
    target = where or Target()
    target.show(target.request("PUT", f"{path}/recheck", json=None if reason is None else {"reason": reason}))


def _path(document: str) -> str:
    return f"/documents/{quote(document, safe='')}"
