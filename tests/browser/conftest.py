"""A browser and a server for the tests of a module."""

from collections.abc import Generator

import pytest

from tests.browser.windows import chromium
from tests.support.server import Server, lasting_server


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    with chromium(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    with lasting_server() as server:
        yield server
