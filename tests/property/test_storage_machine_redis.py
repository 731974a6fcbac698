"""Any sequence of storage calls leads where a simple model leads, on Redis as well."""

from collections.abc import Generator
from uuid import uuid4

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from roomkey.backends.redis import RedisSessionStorage, RedisSettings
from roomkey.ports import SessionStorage
from tests.property.test_storage_machine import StorageMachine
from tests.support.effort import examples
from tests.support.store_servers import ServerProcess, is_there, missing, redis

pytestmark = pytest.mark.skipif(not is_there("redis"), reason=missing("redis"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[ServerProcess]:
    with redis(tmp_path_factory.mktemp("redis")) as process:
        yield process


def test_every_sequence_of_calls_leads_where_the_model_leads(server: ServerProcess) -> None:
    class RedisMachine(StorageMachine):
        def open(self) -> SessionStorage:
            return RedisSessionStorage(server.url, RedisSettings(key_prefix=f"test-{uuid4().hex}"))

    run_state_machine_as_test(
        RedisMachine,
        settings=settings(max_examples=examples(20), stateful_step_count=30, deadline=None),
    )
