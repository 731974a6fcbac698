"""Where a server says that it listens: to its operator, and to other machines."""

import socket

import pytest

from roomkey.config import Config, ServerSettings
from roomkey.listening import address_for_others, address_of, listening

EVERYWHERE = [pytest.param("0.0.0.0", "0.0.0.0"), *([pytest.param("::", "[::]")] if socket.has_ipv6 else [])]


@pytest.mark.parametrize(("host", "shown"), EVERYWHERE)
def test_what_listens_everywhere_is_found_by_the_name_of_the_machine(host: str, shown: str) -> None:
    config = Config(server=ServerSettings(host=host, port=0))

    with listening(config.server) as listener:
        port = listener.getsockname()[1]

        assert address_of(config, listener) == f"http://{shown}:{port}"
        assert address_for_others(config, listener) == f"http://{socket.gethostname()}:{port}"


def test_what_listens_at_one_address_is_found_there() -> None:
    config = Config(server=ServerSettings(host="127.0.0.1", port=0))

    with listening(config.server) as listener:
        assert address_for_others(config, listener) == address_of(config, listener)
