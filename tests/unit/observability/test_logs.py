import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
import uvicorn

from roomkey.observability.logs import configure
from roomkey.observability.settings import LogFormat, LogLevel, LogSettings
from roomkey.security import apikeys, tokens


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in (None, "uvicorn", "uvicorn.error", "uvicorn.access")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def logs_of(style: LogFormat = LogFormat.JSON, **settings: Any) -> io.StringIO:
    stream = io.StringIO()
    configure(LogSettings(format=style, **settings), stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_machines_get_one_json_object_per_event() -> None:
    stream = logs_of()

    structlog.get_logger().info("session_created", session="3a…", count=2)

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["count"]) == ("session_created", "info", 2)
    assert line["timestamp"].endswith("Z")


def test_what_is_below_the_level_is_not_written() -> None:
    stream = logs_of(level=LogLevel.WARNING)

    structlog.get_logger().info("quiet")
    structlog.get_logger().warning("loud")

    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_standard_library_says_it_in_the_same_way() -> None:
    stream = logs_of()

    logging.getLogger("somebody").error("%s went wrong", "it")

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("it went wrong", "error", "somebody")


def test_requests_are_logged_only_if_asked_for() -> None:
    stream = logs_of()

    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/", "1.1", 200)

    assert stream.getvalue() == ""


def test_what_somebody_configured_before_us_says_nothing_twice(capsys: pytest.CaptureFixture[str]) -> None:
    uvicorn.Config(app=print)  # sends its logs to the terminal

    stream = logs_of(access=True)
    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', "1.2.3.4:5", "GET", "/?a=b", "1.1", 200)

    assert len(lines(stream)) == 1
    assert capsys.readouterr() == ("", "")


def test_requests_are_logged_without_their_query() -> None:
    stream = logs_of(access=True)
    arguments = ("1.2.3.4:5", "GET", "/ws?ticket=swordfish", "1.1", 101)

    logging.getLogger("uvicorn.access").info('%s - "%s %s HTTP/%s" %d', *arguments)

    (line,) = lines(stream)
    assert (line["path"], line["status"]) == ("/ws", 101)
    assert "swordfish" not in stream.getvalue()


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_tokens_and_keys_are_hidden_wherever_they_stand(style: LogFormat) -> None:
    token, (key, _) = tokens.mint(tokens.mint_id(7)), apikeys.mint()
    stream = logs_of(style)

    structlog.get_logger().info(f"failed for {token}", header=f"Bearer {key}")
    try:
        int(token)
    except ValueError:
        structlog.get_logger().exception("parse_failed")

    written = stream.getvalue()
    assert token.partition(".")[2] not in written
    assert key not in written
    assert written.count("<hidden>") == 3
    assert token.partition(".")[0] in written


@pytest.mark.parametrize("style", [LogFormat.JSON, LogFormat.CONSOLE])
def test_tracebacks_do_not_show_the_values_of_variables(style: LogFormat) -> None:
    stream = logs_of(style)

    def fail() -> None:
        password = "swordfish"
        raise ValueError(len(password))

    try:
        fail()
    except ValueError:
        structlog.get_logger().exception("failed")

    assert "ValueError" in stream.getvalue()
    assert "fail()" in stream.getvalue()
    assert "swordfish" not in stream.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_log_that_cannot_be_written_stops_nobody() -> None:
    stream = Path("/dev/full").open("w", buffering=1, encoding="utf-8")  # noqa: SIM115  # closing it raises

    configure(LogSettings(), stream)
    structlog.get_logger().error("lost")
    logging.getLogger("somebody").error("lost, too")

    with pytest.raises(OSError, match="No space left"):
        stream.close()
