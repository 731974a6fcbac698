"""Messages between nodes: what is written is read again, and what is unknown is ignored and counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from roomkey.wire.node_format import VERSION, NodeFormat, TooLong


class Hello(Struct, frozen=True, tag="hello"):
    name: str
    content: bytes


class Bye(Struct, frozen=True, tag="bye"):
    name: str


class NewerHello(Struct, frozen=True, tag="hello"):
    name: str
    content: bytes
    mood: str


class Unheard(Struct, frozen=True, tag="unheard"):
    name: str


def messages(max_bytes: int = 1000) -> NodeFormat[Hello | Bye]:
    return NodeFormat(Hello | Bye, max_bytes=max_bytes)


@given(name=st.text(max_size=50), content=st.binary(max_size=50))
def test_what_is_written_is_read_again(name: str, content: bytes) -> None:
    reader = messages()

    assert [reader.decode(reader.encode(each)) for each in (Hello(name, content), Bye(name))] == [
        Hello(name, content),
        Bye(name),
    ]
    assert reader.ignored == 0


@given(st.binary(max_size=100))
def test_garbage_is_ignored_and_counted(garbage: bytes) -> None:
    reader = messages()

    found = [reader.decode(garbage), reader.decode(VERSION + garbage)]

    assert all(each is None or isinstance(each, Hello | Bye) for each in found)
    assert reader.ignored == found.count(None)


@pytest.mark.parametrize("encoded", [b"", b'{"id":"x"}', b"\x02" + messages().encode(Bye("x"))[1:]])
def test_another_version_is_ignored(encoded: bytes) -> None:
    reader = messages()

    assert reader.decode(encoded) is None
    assert reader.ignored == 1


def test_a_message_that_only_newer_nodes_know_is_ignored_and_a_field_is_passed_over() -> None:
    reader, newer = messages(), NodeFormat[NewerHello | Unheard](NewerHello | Unheard)

    assert reader.decode(newer.encode(Unheard("x"))) is None
    assert reader.decode(newer.encode(NewerHello("x", b"y", "fine"))) == Hello("x", b"y")
    assert reader.ignored == 1


def test_what_is_too_long_is_neither_written_nor_read() -> None:
    reader, generous = messages(max_bytes=100), messages()

    with pytest.raises(TooLong):
        reader.encode(Hello("x", bytes(100)))
    assert reader.decode(generous.encode(Hello("x", bytes(100)))) is None
    assert reader.ignored == 1
