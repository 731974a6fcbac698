"""
Runs command lines of Roomkey, each in a fork of this process, which has loaded everything already.

Reads one JSON object per line: ``arguments``, ``folder``, ``variables`` (the whole environment), ``open_files`` (the
limit on them), ``is_removed`` (whether the folder is gone). Answers with ``code``, ``output`` and ``errors``. A server
is asked to stop when it says that it listens.
"""

import json
import os
import resource
import signal
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, NoReturn

COMMANDS = ("serve", "sessions", "documents", "doctor", "tools", "keys", "nodes", "audit_trail", "in_process")
STORES = ("documents", "leases", "objects", "processes", "shared")
LOADED = (
    *("rich.console", "rich.table", "cryptography.hazmat.primitives.ciphers.aead", "roomkey.bench", "roomkey.server"),
    *(f"roomkey.cli.{name}" for name in COMMANDS),
    *(f"roomkey.backends.lmdb.{name}" for name in STORES),
)
LISTENING = b"Roomkey listening on "
PATIENCE_SECONDS = 20


def main() -> None:
    for name in LOADED:
        import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(json.loads(line))) + "\n")
        sys.stdout.flush()


def run(job: dict[str, Any]) -> dict[str, Any]:
    with TemporaryFile() as output, TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            become(job, output, errors)
        code = wait(child, output)
        return {"code": code, "output": content(output).decode(), "errors": content(errors).decode()}


def become(job: dict[str, Any], output: IO[bytes], errors: IO[bytes]) -> NoReturn:
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output.fileno(), 1)
        os.dup2(errors.fileno(), 2)
        os.closerange(3, 64)
        os.chdir(job["folder"])
        if job["is_removed"]:
            Path(job["folder"]).rmdir()
        os.environ.clear()
        os.environ.update(job["variables"])
        if job["open_files"] is not None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (job["open_files"],) * 2)
        sys.argv = ["roomkey", *job["arguments"]]
        code = import_module("roomkey.__main__").main()
        sys.stdout.flush()
    except BaseException:  # noqa: BLE001  # as the interpreter would
        traceback.print_exc()
        code = 70
    os._exit(code)


def wait(child: int, output: IO[bytes]) -> int:
    ends = time.monotonic() + PATIENCE_SECONDS
    asked = False
    while True:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if not asked and LISTENING in content(output):
            os.kill(child, signal.SIGTERM)
            asked = True
        if time.monotonic() > ends:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.005)


def content(file: IO[bytes]) -> bytes:
    return os.pread(file.fileno(), 1 << 20, 0)


if __name__ == "__main__":
    main()
