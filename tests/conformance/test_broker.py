"""Every broker keeps the promises of the port."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from roomkey.ports import Broker
from roomkey.realtime.rooms.broker import LocalBroker
from roomkey.realtime.settings import RealtimeSettings
from roomkey.testing.broker import BrokerConformance
from roomkey.testing.clock import ManualClock
from tests.support.sockets import NOON


class TestLocalBroker(BrokerConformance):
    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Broker]:
        yield LocalBroker(RealtimeSettings(), ManualClock(NOON))
