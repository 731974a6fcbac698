"""Which requests are meant for a server, by the host that they name."""

import pytest

from roomkey.config import ServerSettings
from roomkey.transports.hosts import LOCAL, AllowedHosts


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3000",
        "LOCALHOST.",
        "demo.localhost:3000",
        "127.0.0.1:3000",
        "127.8.9.10",
        "[::1]:3000",
        "[0:0:0:0:0:0:0:1]",
        "rooms.test",
    ],
)
def test_a_local_host_is_answered(host: str) -> None:
    assert AllowedHosts([*LOCAL, "rooms.test"]).allows(host.encode())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:3000",
        "localhost.evil.example",
        "evillocalhost",
        "127.0.0.1.evil.example",
        "192.0.2.7",
        "[2001:db8::1]",
        "::1",
        "localhost:3000:3000",
        "localhost:http",
        "localhost/",
        "user@localhost",
        "localhost, evil.example",
        "<loopback>",
        "localhost\xff",
        "2130706433",
    ],
)
def test_a_host_that_anybody_can_have_is_not(host: str) -> None:
    assert not AllowedHosts(LOCAL).allows(host.encode("latin-1"))


def test_a_pattern_stands_for_what_is_below_a_name_and_not_for_the_name() -> None:
    hosts = AllowedHosts(["*.Example.com", "2001:db8::0:1"])

    asked = [b"a.example.com", b"a.b.EXAMPLE.com:1", b"example.com", b"badexample.com"]
    answered = [host for host in asked if hosts.allows(host)]

    assert answered == [b"a.example.com", b"a.b.EXAMPLE.com:1"]
    assert hosts.allows(b"[2001:db8::1]:3000")


@pytest.mark.parametrize(
    ("settings", "hosts"),
    [
        (ServerSettings(), None),
        (ServerSettings(dev=True, host="my.box"), (*LOCAL, "my.box")),
        (ServerSettings(dev=True, allowed_hosts=("a.example",)), ("a.example",)),
        (ServerSettings(allowed_hosts=("a.example",)), ("a.example",)),
        (ServerSettings(dev=True, allowed_hosts=("*",)), None),
    ],
)
def test_only_development_minds_the_host_unless_hosts_are_given(
    settings: ServerSettings, hosts: tuple[str, ...] | None
) -> None:
    assert settings.hosts == hosts
