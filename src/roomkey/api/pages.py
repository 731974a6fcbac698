"""The pages that are built from sources of their own: read into memory at start, and served from there."""

from hashlib import sha256
from pathlib import Path
from typing import Final

from msgspec import Struct
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from roomkey.api.http_messages import HTML, Headers, Reply, headers_of, matches_etag
from roomkey.errors import MethodNotAllowed, NotFound

BUILT: Final = Path(__file__).parent.parent / "web" / "dist"
"""What the build hook makes of the sources beside it: one folder for each page."""

CONTENT_TYPES: Final = {
    ".css": b"text/css; charset=utf-8",
    ".html": HTML[1],
    ".js": b"text/javascript; charset=utf-8",
    ".md": b"text/markdown; charset=utf-8",
    ".svg": b"image/svg+xml",
}

POLICY: Final = (
    b"default-src 'self'; "
    b"style-src 'self' 'unsafe-inline'; "  # CodeMirror makes its own, and the carets of others have colours
    b"connect-src 'self' ws: wss:; "  # not every browser takes the sockets of this origin for itself
    b"object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

UNBUILT: Final = b"""\
<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Roomkey: this page has not been built</title>
<link rel="icon" href="data:,">
<style>body { font: 1rem/1.6 system-ui, sans-serif; max-width: 36rem; margin: 15vh auto; padding: 0 1.25rem; }</style>
<h1>This page has not been built</h1>
<p>It was left out when Roomkey was installed, because its parts could not be fetched. Everything else works.</p>
<p>In a checkout <code>python hatch_build.py</code> builds it and says what is missing, if anything is. It takes effect
with the next start of the server.</p>
"""


class File(Struct, frozen=True):
    """A file as it is sent; ``tag`` is its strong entity tag."""

    content: bytes
    tag: bytes
    headers: Headers
    status: int = 200


class BuiltPage:
    """
    An ASGI application: the files of one page, below ``path``.

    What was not there at the start does not exist, whatever a path says. Without an ``index.html`` there is a
    page in its place that says how to build it.
    """

    def __init__(self, path: str, folder: Path) -> None:
        self._path = path
        self._files = {
            file.relative_to(folder).as_posix(): _read(file)
            for file in sorted(folder.rglob("*"))
            if file.suffix in CONTENT_TYPES and file.is_file()
        }
        self._files[""] = self._files.pop("index.html", _UNBUILT_FILE)

    def routes(self) -> list[Route]:
        """Where it is served. Its files are named relative to it, so that its address must end with a slash."""
        return [Route(self._path, _Redirect(self._path)), Route(f"{self._path}/{{file:path}}", self)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI calls it
        """Answer one request, or raise what is wrong with it."""
        _check_method(scope)
        file = self._files.get(scope["path_params"]["file"])
        if file is None:
            raise NotFound("there is nothing here")
        if matches_etag(headers_of(scope).get("if-none-match"), file.tag):
            reply = Reply(304, b"", file.headers)
        else:
            reply = Reply(file.status, file.content, file.headers)
        await reply.send(send, head=scope["method"] == "HEAD")


class _Redirect:
    def __init__(self, path: str) -> None:
        self._place = path.rpartition("/")[2].encode() + b"/"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002  # as ASGI calls it
        _check_method(scope)
        query = scope["query_string"]
        # Relative, and so the same wherever Roomkey is mounted.
        location = self._place + (b"?" + query if query else b"")
        await Reply(307, b"", [(b"location", location)]).send(send)


def _check_method(scope: Scope) -> None:
    if scope["method"] not in ("GET", "HEAD"):
        raise MethodNotAllowed("GET, HEAD")


def _read(path: Path) -> File:
    content = path.read_bytes()
    tag = b'"%b"' % sha256(content).hexdigest()[:32].encode()
    # The names of assets contain a hash of what is in them.
    lasting = b"public, max-age=31536000, immutable" if path.parent.name == "assets" else b"no-cache"
    headers: Headers = [(b"content-type", CONTENT_TYPES[path.suffix]), (b"cache-control", lasting), (b"etag", tag)]
    if path.suffix == ".html":
        headers.append((b"content-security-policy", POLICY))
    return File(content, tag, headers)


_UNBUILT_FILE: Final = File(
    UNBUILT,
    tag=b"",
    headers=[
        HTML,
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
    ],
    status=503,
)
