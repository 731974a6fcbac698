"""Any sequence of calls leads where the model leads, in Redis too: apart, because its server is a fixture."""

from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from roomkey.backends.redis.documents import RedisDocumentStore
from tests.property.test_document_store_machine import DocumentStoreMachine
from tests.support.effort import examples
from tests.support.store_servers import RedisProcess
from tests.support.store_servers.fixtures import with_prefix


def test_any_sequence_of_calls_leads_where_the_model_leads(redis_server: RedisProcess) -> None:
    class RedisMachine(DocumentStoreMachine):
        def open(self) -> RedisDocumentStore:
            return RedisDocumentStore(with_prefix(redis_server.url))

    run_state_machine_as_test(RedisMachine, settings=settings(max_examples=examples(30), stateful_step_count=30))
