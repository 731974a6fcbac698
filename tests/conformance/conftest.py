"""Variants of a store run a part of its suite in the gate, and the whole of it with the tests that are marked slow."""

import pytest

from tests.support.variants import is_in_gate


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what the gate leaves out, before pytest selects by marks."""
    for item in items:
        if isinstance(item, pytest.Function) and item.cls is not None:
            suite = item.cls.__name__
            if not is_in_gate(suite, item.name):
                item.add_marker("slow")
