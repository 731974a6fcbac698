"""The network of an address, by which callers are counted before anybody has said who they are."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roomkey.security.networks import check_network, is_loopback, membership, network_of

V4 = st.integers(0, 2**32 - 1).map(IPv4Address)
V6 = st.integers(2**64, 2**128 - 1).map(IPv6Address)  # nothing that is one of IPv4


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("::FFFF:c000:207", "192.0.2.7"),
        ("2001:db8:1:2:aaaa::1", "2001:db8:1:2::/64"),
        ("2001:0DB8:0001:0002::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("/run/roomkey.sock", "/run/roomkey.sock"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_an_address_is_in_one_network_however_it_is_written(address: str, network: str) -> None:
    assert network_of(address) == network


@given(V4)
def test_an_address_of_ipv4_is_a_network_of_its_own(address: IPv4Address) -> None:
    assert network_of(str(address)) == network_of(f"::ffff:{address}") == str(address)


@given(V6, st.integers(0, 2**64 - 1))
def test_who_changes_the_lower_half_of_an_address_stays_where_he_was(address: IPv6Address, lower: int) -> None:
    neighbour = IPv6Address(int(address) >> 64 << 64 | lower)

    assert network_of(str(address)) == network_of(str(neighbour)) == network_of(neighbour.exploded)


@given(V6, st.integers(0, 63))
def test_every_bit_of_the_upper_half_counts(address: IPv6Address, bit: int) -> None:
    assert network_of(str(address)) != network_of(str(IPv6Address(int(address) ^ 1 << 64 + bit)))


def test_membership_is_of_addresses_however_they_are_written() -> None:
    is_in = membership(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])

    assert [is_in(address) for address in ("10.1.2.3", "::ffff:10.1.2.3", "2001:db8:1::1", "192.0.2.7")] == [True] * 4
    assert not any(map(is_in, ("11.0.0.1", "2001:db9::1", "192.0.2.8", "", "unix")))
    assert not membership([])("10.1.2.3")


def test_a_network_is_returned_as_it_was_written() -> None:
    assert [check_network(text) for text in ("10.0.0.7", "2001:DB8::/32")] == ["10.0.0.7", "2001:DB8::/32"]


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "::1"])
def test_loopback_is_this_machine(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["", "0.0.0.0", "::", "10.0.0.7", "example.com", "localhost.example.com", "127.1"])
def test_everything_else_is_not(host: str) -> None:
    assert not is_loopback(host)


def test_what_is_no_network_is_said_to_be_none() -> None:
    for text in ("10.0.0.1/8", "example.com", "*", ""):
        with pytest.raises(ValueError, match="is not an address such as"):
            check_network(text)
