"""
The names inside picows, pycrdt and uvicorn that we use though nobody promised them.

When one is missing, the test says which: before the upper bound of a dependency is raised, this is where to look.
"""

import inspect
import re
from importlib import import_module
from typing import Any

import pytest
from picows import WSListener

from roomkey.transports.framing import FrameParser

ATTRIBUTES = {
    "picows": ["WSListener", "WSTransport", "WSFrame", "WSAutoPingStrategy.PING_WHEN_IDLE"],
    "picows.common": ["WSUpgradeResponseWithListener"],
    "picows.picows": [
        "WSProtocol.connection_made",
        "WSProtocol.get_buffer",
        "WSProtocol.buffer_updated",
    ],
    "pycrdt._pycrdt": [
        *(f"Doc.{name}" for name in ("create_transaction", "apply_update", "get_state")),
        *(f"Transaction.{name}" for name in ("commit", "drop")),
    ],
    "uvicorn._types": ["ASGI3Application"],
    "uvicorn.config": ["Config.load"],
    "uvicorn.protocols.http.httptools_impl": [
        *(f"HttpToolsProtocol.{name}" for name in ("connection_made", "data_received", "connection_lost")),
        *(f"HttpToolsProtocol.{name}" for name in ("on_message_begin", "on_headers_complete", "on_body")),
        *(f"HttpToolsProtocol.{name}" for name in ("on_message_complete", "handle_websocket_upgrade")),
        *(f"HttpToolsProtocol.{name}" for name in ("_start_asgi_task", "_should_upgrade")),
        "RequestResponseCycle.send",
    ],
    "uvicorn.server": ["Server.capture_signals", "Server.startup", "Server.serve", "ServerState"],
}

ASSIGNED = {
    ("uvicorn.protocols.http.httptools_impl", "HttpToolsProtocol"): {
        *("transport", "parser", "pipeline", "scope", "headers", "url", "cycle"),
    },
    ("uvicorn.protocols.http.httptools_impl", "RequestResponseCycle"): {
        *("scope", "transport", "flow", "default_headers", "message_event", "on_response"),
        *("disconnected", "keep_alive", "waiting_for_100_continue", "access_log"),
        *("response_started", "response_complete"),
    },
    ("uvicorn.protocols.http.flow_control", "FlowControl"): {"write_paused"},
    ("pycrdt._base", "BaseDoc"): {"_doc"},
    ("uvicorn.config", "Config"): {"backlog"},
    ("uvicorn.server", "Server"): {"config", "server_state", "servers", "lifespan", "started", "should_exit"},
    ("uvicorn.server", "ServerState"): {"connections", "tasks"},
}
"""What their constructors set."""


def found(module: str, path: str) -> bool:
    value: Any = import_module(module)
    for name in path.split("."):
        value = getattr(value, name, None)
    return value is not None


@pytest.mark.parametrize("module", ATTRIBUTES)
def test_every_name_that_we_use_is_there(module: str) -> None:
    missing = [f"{module}.{path}" for path in ATTRIBUTES[module] if not found(module, path)]

    assert missing == []


@pytest.mark.parametrize(("module", "name"), ASSIGNED)
def test_every_attribute_that_we_use_is_set_by_the_constructor(module: str, name: str) -> None:
    source = inspect.getsource(getattr(import_module(module), name))

    is_set = set(re.findall(r"\bself\.(\w+)(?:: [^=\n]+)? =", source))
    missing = [f"{module}.{name}.{each}" for each in sorted(ASSIGNED[module, name] - is_set)]

    assert missing == []


async def test_picows_takes_every_parameter_that_we_give_it_and_says_of_a_frame_what_is_wrong() -> None:
    # The protocol object is compiled and has no signature to look at; a parameter that is gone is named in a TypeError.
    parser = FrameParser(WSListener(), max_frame_bytes=1000)
    unmasked = b"\x81\x01x"
    parser.get_buffer()[: len(unmasked)] = unmasked

    violation = parser.parse(len(unmasked))

    assert violation is not None
    assert violation.code == 1002
