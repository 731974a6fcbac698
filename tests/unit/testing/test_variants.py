"""A variant of a store is asked in the gate for what its difference may break, and every other store for everything."""

import pytest

from roomkey.testing.documents import DocumentStoreConformance
from roomkey.testing.storage import StorageConformance
from tests.support.variants import VARIANTS, is_in_gate

SUITES = (DocumentStoreConformance, StorageConformance)


def promises_of(suite: type) -> list[str]:
    return [name for name in dir(suite) if name.startswith("test_")]


@pytest.mark.parametrize("suite", SUITES)
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_is_asked_for_a_part_of_every_suite(variant: str, suite: type) -> None:
    names = promises_of(suite)

    asked = [name for name in names if is_in_gate(f"TestPostgresqlDocumentStore{variant}", name)]

    assert len(names) / 10 < len(asked) < len(names) * 6 / 10


def test_any_other_store_is_asked_for_everything() -> None:
    assert all(is_in_gate("TestClusterDocumentStore", name) for suite in SUITES for name in promises_of(suite))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_word_is_in_the_name_of_a_test(variant: str) -> None:
    names = [name for suite in SUITES for name in promises_of(suite)]

    assert [word for word in VARIANTS[variant] if not any(word in name for name in names)] == []
