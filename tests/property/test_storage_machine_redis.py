"""Any sequence of storage calls leads where a simple model leads, on Redis as well."""

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from roomkey.backends.redis import RedisSessionStorage
from roomkey.ports import SessionStorage
from tests.property.test_storage_machine import StorageMachine
from tests.support.effort import examples
from tests.support.store_servers import RedisProcess
from tests.support.store_servers.fixtures import with_prefix


def test_every_sequence_of_calls_leads_where_the_model_leads(redis_server: RedisProcess) -> None:
    class RedisMachine(StorageMachine):
        def open(self) -> SessionStorage:
            return RedisSessionStorage(with_prefix(redis_server.url))

    run_state_machine_as_test(
        RedisMachine, settings=settings(max_examples=examples(20), stateful_step_count=30, deadline=None)
    )
