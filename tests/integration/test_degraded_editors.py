"""While what nodes share is away, editors are told as far as their protocols have a word for it, and go on."""

import json

from roomkey.wire import lib0
from tests.support.documents import a_site, edit, hocuspocus_client, y_client

LATER, AGAIN = b"\x09\x01", b"\x09\x00"

NOTICE = lib0.text("plan") + b"\x05"


async def test_an_editor_that_asks_for_its_status_is_told_of_every_change_and_on_every_connection() -> None:
    troubles: dict[str, str] = {}
    async with a_site() as site:
        site.node.watch_for_troubles(lambda: troubles)
        token = await site.token()
        async with y_client(site, token, status="1") as ada, y_client(site, token) as plain:
            troubles["broker"] = "it does not answer"
            await ada.next(LATER)
            async with y_client(site, token, status="1") as late:
                await late.next(LATER)
            await ada.send(edit("hello"))
            await ada.next(b"\x08\x01")
            troubles.clear()
            await ada.next(AGAIN)

            assert not any(frame.startswith(b"\x09") for frame in [*ada.unread, *await plain.heard()])


async def test_a_provider_of_hocuspocus_is_told_in_a_stateless_message() -> None:
    troubles: dict[str, str] = {"broker": "it does not answer"}
    async with a_site() as site, hocuspocus_client(site) as ada:
        site.node.watch_for_troubles(lambda: troubles)
        await ada.show("plan", await site.token())

        told: list[object] = []
        for _ in range(2):
            payload, _end = lib0.read_text(await ada.next(NOTICE), 0)
            told.append(json.loads(payload))
            troubles.clear()

        assert told == [{"type": "roomkey.service", "degraded": degraded} for degraded in (True, False)]
