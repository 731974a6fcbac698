"""Routes that are matched as they were sent."""

import pytest
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from roomkey.api.routing import SegmentRoute

VERSION = "/documents/{name}/versions/{number}"


async def ignore(scope: Scope, receive: Receive, send: Send) -> None:
    """Whatever comes here is left unanswered."""


def parameters(template: str, raw: str | None, path: str, root: str = "", kind: str = "http") -> dict[str, str] | None:
    scope = {"type": kind, "path": root + path, "root_path": root, "raw_path": None if raw is None else raw.encode()}
    match, found = SegmentRoute(template, ignore).matches(scope)
    return found["path_params"] if match is Match.FULL else None


def test_a_parameter_is_one_segment_decoded() -> None:
    found = parameters(VERSION, "/documents/a%2Fb%20c/versions/7", "/documents/a/b c/versions/7")

    assert found == {"name": "a/b c", "number": "7"}


@pytest.mark.parametrize(
    "raw", ["/documents/a/versions/", "/documents/a/versions", "/documents//versions/1", "/documents/a/versions/1/2"]
)
def test_segments_are_counted_and_none_is_empty(raw: str) -> None:
    assert parameters(VERSION, raw, raw) is None


def test_what_is_fixed_may_be_encoded_and_must_be_the_same() -> None:
    assert parameters("/documents/{name}", "/d%6Fcuments/a", "/documents/a") == {"name": "a"}
    assert parameters("/documents/{name}", "/document/a", "/document/a") is None


@pytest.mark.parametrize("raw", ["/rooms/documents/a%2Fb", "/r%6Foms/documents/a%2Fb", "/rooms/documents/a%2Fb?x=/y"])
def test_where_we_are_mounted_does_not_matter(raw: str) -> None:
    assert parameters("/documents/{name}", raw, "/documents/a/b", root="/rooms") == {"name": "a/b"}


def test_a_path_that_is_not_what_was_sent_is_not_guessed_at() -> None:
    assert parameters("/documents/{name}", "/elsewhere/a%2Fb", "/documents/a/b") is None


def test_a_server_that_does_not_say_what_was_sent_parts_at_every_slash() -> None:
    assert parameters("/documents/{name}", None, "/documents/a") == {"name": "a"}
    assert parameters("/documents/{name}", None, "/documents/a/b") is None


def test_bytes_that_are_no_text_stay_apart_from_every_text() -> None:
    found = parameters("/documents/{name}", "/documents/%FF", "/documents/\ufffd")

    assert found == {"name": "\udcff"}


def test_sockets_are_for_somebody_else() -> None:
    assert parameters("/documents/{name}", "/documents/a", "/documents/a", kind="websocket") is None
