"""
Where a command cannot do its work, it says why in one line and what to do about it; it never shows a traceback, and
never takes for a mistake of ours what is none. The doctor goes on with its other checks.
"""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
from cyclopts import App

import roomkey
from roomkey.cli import app
from roomkey.cli.outcome import Exit
from tests.support.commands import Commands, Ended, commands, needs_rights, plain_environment
from tests.support.disks import full_disk, read_only_disk
from tests.support.server import LISTENING, START_SECONDS

COMMANDS: Final = {
    "serve": "serve --data {data} --port {port}",
    "doctor": "doctor --data {data} --port {port}",
    "config": "config --data {data}",
    "nodes": "nodes --data {data}",
    "sessions list": "sessions list --storage lmdb://{data}",
    "sessions create": "sessions create alice --storage lmdb://{data}",
    "documents list": "documents list --storage lmdb://{data}",
    "documents import": "documents import notes empty.roomkey --storage lmdb://{data}",
    "access show": "access show notes --user alice --storage lmdb://{data}",
    "groups list": "groups list --storage lmdb://{data}",
    "webhooks list": "webhooks list --storage lmdb://{data}",
    "audit tail": "audit tail --storage lmdb://{data}",
    "keys generate": "keys generate",
    "openapi": "openapi",
    "messages": "messages",
    "asyncapi": "asyncapi",
    "settings": "settings idle",
    "bench": "bench --count 10",
}
"""One of each kind; the other commands on sessions and documents take the same way."""

STORING: Final = {
    *(
        "serve",
        "doctor",
        "sessions list",
        "sessions create",
        "documents list",
        "documents import",
        "access show",
        "groups list",
        "webhooks list",
        "audit tail",
    ),
}
CONFIGURED: Final = STORING | {"config", "nodes"}


@dataclass(frozen=True)
class Surroundings:
    """What is wrong somewhere, and which commands say so in which words; the others do their work."""

    prepare: Callable[[Path], object] = lambda _folder: None
    concerned: frozenset[str] | set[str] = frozenset()
    says: str = ""
    data: str = "data"
    disk: Callable[[Path], AbstractContextManager[None]] = lambda _folder: nullcontext()
    open_files: int | None = None
    is_removed: bool = False
    home: bool = True
    port: int = 0


def made(path: Path, mode: int) -> None:
    path.mkdir()
    path.chmod(mode)


def locked(path: Path) -> None:
    path.write_text("[server]\n", encoding="utf-8")
    path.chmod(0)


YOURS: Final = "permission denied; give it to the user that runs Roomkey"

SURROUNDINGS: Final[Mapping[str, Surroundings]] = {
    "nothing wrong": Surroundings(),
    "no HOME": Surroundings(home=False),
    "no parent of the data directory": Surroundings(data="not/there/yet"),
    "the data directory of somebody else": Surroundings(lambda at: made(at / "data", 0o000), STORING, YOURS),
    "a data directory that may only be read": Surroundings(lambda at: made(at / "data", 0o555), STORING, YOURS),
    "a parent that may only be read": Surroundings(lambda at: made(at / "up", 0o555), STORING, YOURS, data="up/a/b"),
    "a file as the data directory": Surroundings(lambda at: (at / "data").touch(), STORING, "not a directory"),
    "a file above the data directory": Surroundings(
        lambda at: (at / "file").touch(), STORING, "not a directory", data="file/data"
    ),
    "a link to itself": Surroundings(lambda at: (at / "data").symlink_to(at / "data"), STORING, "choose another place"),
    "a name that is too long": Surroundings(concerned=STORING, says="file name too long", data="n" * 300),
    "a data file of something else": Surroundings(
        lambda at: [made(at / "data", 0o700), (at / "data" / "data.mdb").write_bytes(b"something else" * 1000)],
        STORING,
        "it has a data file that is not Roomkey's, or is damaged",
    ),
    "a disk that may only be read": Surroundings(
        lambda at: made(at / "disk", 0o700), STORING, "read-only file system", data="disk/data", disk=read_only_disk
    ),
    "a full disk": Surroundings(
        lambda at: made(at / "disk", 0o700),
        STORING - {"doctor"},  # it says that the disk has no room, and that a server would start
        "no space left on device; free some space",
        data="disk/data",
        disk=full_disk,
    ),
    "a working directory that is gone": Surroundings(concerned=CONFIGURED, says="", is_removed=True),
    "8 open files": Surroundings(concerned=STORING | {"bench"}, says="open", open_files=8),
    "20 open files": Surroundings(concerned={"serve", "doctor"}, says="`ulimit -n 4096`", open_files=20),
    "a configuration that is a directory": Surroundings(
        lambda at: (at / "roomkey.toml").mkdir(), CONFIGURED, "roomkey.toml cannot be read: is a directory"
    ),
    "a configuration of somebody else": Surroundings(
        lambda at: locked(at / "roomkey.toml"), CONFIGURED, f"roomkey.toml cannot be read: {YOURS}"
    ),
    "a configuration in Latin-1": Surroundings(
        lambda at: (at / "roomkey.toml").write_bytes(b"# caf\xe9\n"), CONFIGURED, "roomkey.toml is not UTF-8"
    ),
    "a configuration with a byte order mark": Surroundings(
        lambda at: (at / "roomkey.toml").write_bytes(b"\xef\xbb\xbf[server]\n")
    ),
    "a port that is taken": Surroundings(concerned={"serve", "doctor"}, says="Address already in use", port=-1),
}


@pytest.fixture(scope="module")
def runner() -> Iterator[Commands]:
    with commands() as ready:
        yield ready


@pytest.fixture(scope="module")
def taken_port() -> Generator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@needs_rights
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("place", SURROUNDINGS)
def test_a_command_says_what_is_wrong_and_what_to_do(
    place: str, command: str, runner: Commands, taken_port: int, tmp_path: Path
) -> None:
    around = SURROUNDINGS[place]
    around.prepare(tmp_path)
    folder = tmp_path
    if around.is_removed:
        folder = tmp_path / "gone"
        folder.mkdir()
    else:
        (tmp_path / "empty.roomkey").touch()
    data = around.data if around.is_removed else tmp_path / around.data
    arguments = COMMANDS[command].format(data=data, port=taken_port if around.port else 0).split()
    variables = plain_environment()
    if not around.home:
        variables.pop("HOME", None)

    with around.disk(tmp_path / "disk"):
        ended = runner.run(
            arguments, folder=folder, variables=variables, open_files=around.open_files, is_removed=around.is_removed
        )

    assert "Traceback" not in ended.output + ended.errors
    assert "mistake of ours" not in ended.errors
    if command not in around.concerned:
        check_its_work(command, ended)
    elif command == "doctor":
        check_diagnosis(ended)
    else:
        assert ended.code in (Exit.USAGE, *([Exit.AWAY] if command == "bench" else [])), ended
        assert len(ended.errors.splitlines()) == 1, ended.errors
        assert ended.errors.startswith("roomkey: ")
        assert around.says in ended.errors


def check_its_work(command: str, ended: Ended) -> None:
    """An empty file is no document, whatever is around."""
    assert ended.code == (Exit.FAILED if command == "documents import" else Exit.DONE), ended


def check_diagnosis(ended: Ended) -> None:
    """What is wrong is named, with advice, and everything else is still looked at."""
    assert ended.code == Exit.FAILED
    assert ended.errors == ""
    lines = ended.output.splitlines()
    (failed,) = (line for line in lines if line.startswith("failed"))
    assert len(failed.split("  ")) > 3, "without advice"
    if "configuration" not in failed:
        assert any("master key" in line for line in lines)


STREAMS: Final[Mapping[str, tuple[str, Mapping[str, str], Exit]]] = {
    "no standard output": ("exec >&-", {}, Exit.DONE),
    "no standard error": ("exec 2>&-", {}, Exit.DONE),
    "no standard input, output and error": ("exec <&- >&- 2>&-", {}, Exit.DONE),
    "a full disk under standard output": ("exec >/dev/full", {}, Exit.USAGE),
    "a full disk under standard error": ("exec 2>/dev/full", {}, Exit.DONE),
    "a reader that has gone": ("exec > >(:); wait $!", {}, Exit.DONE),
    "ASCII only": (":", {"LC_ALL": "C", "PYTHONIOENCODING": "ascii"}, Exit.DONE),
    "no terminal to speak of": (":", {"TERM": "dumb", "COLUMNS": "0"}, Exit.DONE),
}
"""What is wrong with the streams: how a shell brings it about, and the exit code of a command that prints."""

PRINTING: Final = ("--help", "sessions create zoë --storage lmdb://dätä", "openapi")

needs_bash = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


def begin(arguments: str, streams: str, folder: Path) -> subprocess.Popen[str]:
    statement, variables, _ = STREAMS[streams]
    return subprocess.Popen(
        ["bash", "-c", f"{statement}; exec {sys.executable} -m roomkey {arguments}"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
        env=plain_environment(**variables),
        cwd=folder,
    )


@needs_bash
@pytest.mark.parametrize("streams", STREAMS)
def test_a_command_minds_no_stream_that_it_does_not_need(streams: str, tmp_path: Path) -> None:
    code = STREAMS[streams][2]

    processes = {arguments: begin(arguments, streams, tmp_path) for arguments in PRINTING}
    for arguments, process in processes.items():
        output, errors = process.communicate(timeout=START_SECONDS)

        assert process.returncode == code, (arguments, output, errors)
        assert len(errors.splitlines()) == (code != Exit.DONE), (arguments, errors)
        assert "mistake" not in errors


@needs_bash
@pytest.mark.parametrize(
    ("streams", "heard"),
    [
        ("no standard output", "no_api_keys"),
        ("no standard error", LISTENING),
        ("a full disk under standard output", "no_api_keys"),
        ("a full disk under standard error", LISTENING),
        ("a reader that has gone", "no_api_keys"),
    ],
)
def test_a_server_serves_whether_or_not_it_is_heard(streams: str, heard: str, tmp_path: Path) -> None:
    with begin("serve --port 0 --storage memory", streams, tmp_path) as process:
        stream = process.stdout if heard == LISTENING else process.stderr
        assert stream is not None
        said = stream.readline()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=START_SECONDS)

    assert heard in said
    assert process.returncode == Exit.DONE, (output, errors)
    assert "Traceback" not in output + errors


@pytest.mark.parametrize("module", ["cyclopts", "uvicorn.server"])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, -signal.SIGTERM)])
def test_a_signal_during_the_start_ends_it_without_a_word(
    number: signal.Signals, code: int, module: str, tmp_path: Path
) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "roomkey", "serve", "--port", "0", "--storage", "memory"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pipesize=4096,  # so that it cannot be far beyond what it has told
        text=True,
        env=plain_environment(),
        cwd=tmp_path,
    ) as process:
        assert process.stderr is not None
        # It tells of each module that has been loaded, so that a moment of the start can be chosen.
        while not (line := process.stderr.readline()).rstrip().endswith(f" {module}"):
            assert line, "it was never loaded"
        process.send_signal(number)
        try:
            output, errors = process.communicate(timeout=START_SECONDS)
        finally:
            process.kill()  # leaving the block waits for it, whatever it does

    assert process.returncode == code
    assert output == ""
    assert "Traceback" not in errors


def every_command(group: App, *before: str) -> Iterator[str]:
    for name in group:
        if not name.startswith("-"):
            inside = group[name]
            below = list(every_command(inside, *before, name))
            yield from below or [" ".join((*before, name))]


def test_every_kind_of_command_is_tried() -> None:
    groups = {command.split()[0] for command in every_command(app)}

    # The last three are for storages that are there, and make none: test_cli_storage, test_cli_servers, test_migrate,
    # test_cli_encryption.
    assert groups == {command.split()[0] for command in COMMANDS} | {"storage", "migrate", "encryption"}


@needs_rights
def test_an_argument_that_is_no_text_is_refused(runner: Commands, tmp_path: Path) -> None:
    arguments = ("sessions", "create", "zo\udceb", "--storage", "memory://")

    ended = runner.run(arguments, folder=tmp_path, variables=plain_environment())

    assert ended == Ended(Exit.USAGE, "", "roomkey: an argument or a variable is not UTF-8\n")


@needs_rights
@pytest.mark.parametrize("flag", ["--url=http://[::", "--key=schlüssel"])
def test_an_address_or_key_that_cannot_be_one_is_refused(flag: str, runner: Commands, tmp_path: Path) -> None:
    ended = runner.run(("sessions", "list", flag), folder=tmp_path, variables=plain_environment())

    assert ended.code == Exit.USAGE
    assert ended.errors.startswith(f"roomkey: {flag.partition('=')[0]}: ")
    assert len(ended.errors.splitlines()) == 1


async def make_document(storage: str) -> None:
    rooms = roomkey.asgi(storage={"url": storage}, server={"dev": True})
    transport = httpx.ASGITransport(rooms)
    async with rooms.lifespan(None), httpx.AsyncClient(transport=transport, base_url="http://rooms") as http:
        made = await http.put("/documents/notes", json={"content": "Hello"})
    assert made.is_success


@needs_rights
async def test_an_export_that_fails_leaves_the_file_that_was_there(runner: Commands, tmp_path: Path) -> None:
    before = tmp_path / "disk" / "notes.roomkey"
    storage = f"lmdb://{tmp_path}/data"
    (tmp_path / "disk").mkdir()
    await make_document(storage)

    with full_disk(tmp_path / "disk"):
        before.touch()
        arguments = ("documents", "export", "notes", "--output", str(before), "--storage", storage)
        ended = runner.run(arguments, folder=tmp_path, variables=plain_environment())
        left = sorted(file.name for file in before.parent.iterdir())

    assert (ended.code, ended.output) == (Exit.USAGE, "")
    assert ended.errors == f"roomkey: --output: {before}: no space left on device; free some space\n"
    assert left == ["ballast", "notes.roomkey"]
