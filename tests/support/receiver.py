"""
Receivers of webhooks: one in the test's own process, which does what the test says, and one in a process of its own.

``python -m tests.support.receiver PORT FILE`` writes down each message before it is answered, so that whoever kills it
knows what it had.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
PATIENCE = 30.0


@dataclass(frozen=True)
class Message:
    """A message as it came."""

    headers: Mapping[str, str]
    body: bytes

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def content(self) -> dict[str, Any]:
        return json.loads(self.body)

    @property
    def type(self) -> str:
        return self.content["type"]

    @property
    def data(self) -> dict[str, Any]:
        return self.content["data"]


class Receiver:
    """
    Answers every message with what ``answer`` says: a status, or the bytes of a whole answer; ``None`` hangs up.

    While ``is_away`` it hangs up on whoever comes.
    """

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.attempts = 0
        self.answer: Callable[[Message], int | bytes | None] = lambda _: 204
        self.is_away = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.port = 0
        self._arrived = asyncio.Condition()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/events?key=hidden"

    def endpoint(self, **more: Any) -> dict[str, Any]:
        """The settings of a webhook that is sent here."""
        return {"name": "receiver", "url": self.url, "secrets": [SECRET], "allow_private": True, **more}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while not self.is_away and (head := await reader.readuntil(b"\r\n\r\n")):
                lines = head.decode().split("\r\n")[1:-2]
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                message = Message(headers, await reader.readexactly(int(headers["content-length"])))
                self.attempts += 1
                await self.may_answer.wait()
                answer = self.answer(message)
                if answer is None or self.is_away:
                    break
                if not isinstance(answer, int) or 200 <= answer < 300:
                    async with self._arrived:
                        self.messages.append(message)
                        self._arrived.notify_all()
                whole = b"HTTP/1.1 %d X\r\ncontent-length: 0\r\n\r\n" % answer if isinstance(answer, int) else answer
                writer.write(whole)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the test is over
        finally:
            writer.close()

    async def until(self, condition: Callable[[Sequence[Message]], object]) -> Sequence[Message]:
        """The messages that have come when they meet ``condition``."""
        async with asyncio.timeout(PATIENCE), self._arrived:
            await self._arrived.wait_for(lambda: condition(self.messages))
        return self.messages

    async def count(self, number: int) -> Sequence[Message]:
        """The messages when there are so many."""
        return await self.until(lambda messages: len(messages) >= number)


@asynccontextmanager
async def a_receiver() -> AsyncGenerator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        receiver.is_away = True
        server.close()


class ReceiverProcess:
    """A receiver in a process of its own, which may be killed and started again."""

    def __init__(self, port: int, file: Path) -> None:
        self.port = port
        self._file = file
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.support.receiver", str(self.port), str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def received(self) -> list[dict[str, Any]]:
        """What it had before it answered, in all its lives; a line that was cut was not answered."""
        lines = self._file.read_bytes().splitlines(keepends=True) if self._file.exists() else []
        return [json.loads(line) for line in lines if line.endswith(b"\n")]

    async def until(self, condition: Callable[[list[dict[str, Any]]], object]) -> list[dict[str, Any]]:
        async with asyncio.timeout(PATIENCE):
            while not condition(self.received()):  # noqa: ASYNC110  # a file of another process tells nobody
                await asyncio.sleep(0.1)
        return self.received()


@contextmanager
def receiver_process(port: int, file: Path) -> Generator[ReceiverProcess]:
    process = ReceiverProcess(port, file)
    process.start()
    try:
        yield process
    finally:
        process.kill()


async def _main(port: int, file: Path) -> None:
    descriptor = os.open(file, os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    receiver = Receiver()

    def answer(message: Message) -> int:
        line = json.dumps({"id": message.id, "type": message.type, **message.data}).encode() + b"\n"
        os.write(descriptor, line)
        return 204

    receiver.answer = answer
    async with await asyncio.start_server(receiver.serve, "127.0.0.1", port) as server:
        print("ready", flush=True)  # noqa: T201  # whoever started it waits for that
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), Path(sys.argv[2])))
