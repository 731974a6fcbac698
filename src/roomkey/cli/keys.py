"""``roomkey keys …``: API keys that a server or a storage keeps, and keys for a configuration."""

from collections.abc import Sequence
from typing import Annotated, Any, Final, cast
from urllib.parse import quote

from cyclopts import App, Parameter

from roomkey.cli.outcome import EXIT_CODES, Exit, Failed, print_json, print_table
from roomkey.cli.target import Target, Where
from roomkey.domain.access import Role
from roomkey.security import apikeys, masterkey
from roomkey.settings import duration

_DATA_KEYS: Final = "Keys that encrypt the storage are rotated by `roomkey encryption rotate`."

app = App(
    "keys",
    help="Make, list, rotate and revoke API keys; make master keys.",
    help_epilogue=f"{_DATA_KEYS}\n\n{EXIT_CODES}",
    version_flags=(),
)


@app.command
def generate(
    name: str = "backend",
    *,
    role: Role = Role.SERVICE,
    master: bool = False,
    json: Annotated[bool, Parameter(help="Print JSON.")] = False,
) -> None:
    """
    Make an API key and the lines that make a server accept it, or a master key. It is shown once.

    Args:
        name: Who events say did it.
        role: What the key is for.
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


@app.command
def create(
    name: str,
    *,
    role: Role = Role.SERVICE,
    scope: Sequence[str] = (),
    documents: Annotated[Sequence[str], Parameter(name="--only-documents")] = (),
    users: Annotated[Sequence[str], Parameter(name="--only-users")] = (),
    lifetime: str | None = None,
    where: Where = None,
) -> None:
    """
    Make an API key that the servers of a storage accept within a second. It is shown once.

    Args:
        name: Who events say did it.
        role: What the key is for.
        scope: A kind of actions, and no others, as in documents:read; may be repeated.
        documents: A pattern of documents, and no others, as in 'notes/**'; may be repeated.
        users: How the ids of users begin, and no others; may be repeated.
        lifetime: As in 90d; without one it is accepted until it is revoked.
    """
    body: dict[str, Any] = {"name": name, "role": role}
    only = {"scopes": scope, "documents": documents, "users": users}
    if narrowed := {what: list(entries) for what, entries in only.items() if entries}:
        body["only"] = narrowed
    if lifetime is not None:
        body["lifetime"] = _seconds("--lifetime", lifetime)
    target = where or Target()
    _show(target, target.request("POST", "/keys", json=body))


@app.command(name="list")
def list_keys(*, where: Where = None) -> None:
    """Show every API key, those of the configuration first."""
    target = where or Target()
    answer = target.request("GET", "/keys")
    if target.json:
        print_json(answer)
        return
    columns = ("name", "role", "only", "created_at", "expires_at", "last_used_at")
    print_table(columns, [[_in_words(key[column]) for column in columns] for key in answer["keys"]])


@app.command
def show(name: str, *, where: Where = None) -> None:
    """Show one API key."""
    target = where or Target()
    _show(target, target.request("GET", _path(name)))


@app.command
def rotate(name: str, *, overlap: str | None = None, where: Where = None) -> None:
    """
    Give an API key a new secret, which is shown once.

    Keys that encrypt the storage are rotated by `roomkey encryption rotate`.

    Args:
        name: Which key.
        overlap: How long the secret before it is accepted, as in 1h; a day, if it is left out.
    """
    body = {} if overlap is None else {"json": {"overlap": _seconds("--overlap", overlap)}}
    target = where or Target()
    _show(target, target.request("POST", f"{_path(name)}/rotate", **body))


@app.command
def revoke(name: str, *, where: Where = None) -> None:
    """End an API key: within a second on every server."""
    target = where or Target()
    target.request("DELETE", _path(name))
    target.show({"revoked": name})


def _show(target: Target, answer: dict[str, Any]) -> None:
    """Print an answer that is, or has, one key."""
    if target.json:
        print_json(answer)
        return
    key: dict[str, Any] = answer.get("key", answer)
    rows = [[name, _in_words(value)] for name, value in key.items() if value is not None]
    if secret := answer.get("secret"):
        rows.append(["key", f"{secret}  (shown once)"])
    print_table(("field", "value"), rows)


def _path(name: str) -> str:
    return f"/keys/{quote(name, safe='')}"


def _seconds(option: str, text: str) -> int:
    try:
        return int(duration(text).total_seconds())
    except ValueError as error:
        raise Failed(f"{option}: {error}", Exit.USAGE) from None


def _in_words(value: Any) -> str:
    if not isinstance(value, dict):
        return "" if value is None else str(value)
    narrowed = cast("dict[str, list[str] | None]", value)
    return "; ".join(f"{what} {', '.join(entries)}" for what, entries in narrowed.items() if entries)
