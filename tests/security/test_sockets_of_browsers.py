"""ASVS 4.4.2 to 4.4.4: which pages open sockets, and with what."""

from typing import Final

import pytest

from roomkey.realtime.transport import Accepted, Refused
from tests.support.handshakes import endpoint, handshake
from tests.support.rest import Rest

OURS: Final = "https://rooms.example.com"


@pytest.fixture
def rest() -> Rest:
    return Rest()


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "https://rooms.example.com.evil.example"])
async def test_asvs_4_4_2_a_cookie_opens_no_socket_for_a_foreign_page(rest: Rest, origin: str | None) -> None:
    issued = await rest.session()
    headers = {"cookie": f"__Host-roomkey={issued.token}"} | ({} if origin is None else {"origin": origin})
    door = endpoint(rest)

    refused = await door.accept(handshake(None, **headers))
    ours = await door.accept(handshake(cookie=headers["cookie"], origin=OURS))

    assert isinstance(refused, Refused)
    assert refused.status == 403
    assert isinstance(ours, Accepted)
    assert [event.type for event in rest.reported] == ["origin_rejected"]


async def test_asvs_4_4_3_a_session_without_a_cookie_gets_its_own_token_for_a_socket(rest: Rest) -> None:
    issued = await rest.session()
    ticket = (await rest.call("POST", "/sessions/me/tickets", token=issued.token)).json["ticket"]
    door = endpoint(rest)

    assert isinstance(await door.accept(handshake(ticket=ticket)), Accepted)
    assert isinstance(await door.accept(handshake(ticket=ticket)), Refused)
    assert isinstance(await door.accept(handshake(token=issued.token)), Refused)


async def test_asvs_4_4_4_that_token_is_given_to_nobody_without_a_session(rest: Rest) -> None:
    pending = await rest.session(active=False)

    assert (await rest.call("POST", "/sessions/me/tickets")).code == "credentials_missing"
    assert (await rest.call("POST", "/sessions/me/tickets", token=rest.service)).code == "forbidden"
    assert (await rest.call("POST", "/sessions/me/tickets", token=pending.token)).code == "session_pending"
