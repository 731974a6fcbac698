"""
A supervisor whose workers do nothing but what a test wants to see: ``supervised.py BEHAVIOUR WORKERS [FILE]``.

Also the program of these workers, which are told their behaviour as any worker is told what it is to do.
"""

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from socket import create_server
from typing import Any

from roomkey import supervisor
from roomkey.supervisor import NeverReady, Order, Refused, Supervisor, SupervisorSettings


def supervise(behaviour: str, workers: int, notes: str) -> int:
    """Be the supervisor, with hardly any patience where a test waits for its end, and say what is going on."""
    settings = SupervisorSettings(
        workers=workers,
        stop_seconds=0.5 if behaviour == "hang" else 60,
        end_seconds=0.5,
        start_seconds=0.5 if behaviour == "sleep" else 60,
        tries=3,
        first_pause=0.01,
        longest_pause=0.04,
    )
    command, brief = [sys.executable, __file__, "worker"], f"{behaviour} {notes}".encode()
    with create_server(("127.0.0.1", 0)) as listener:
        boss = Supervisor(command, brief, listener=listener, settings=settings, ready=say_ready, warn=say)
        try:
            return boss.run()
        except Refused as refused:
            say("refused", how=" ".join(refused.problems))
            return 2
        except NeverReady as error:
            say("never ready:", how=str(error))
            return 3


def say_ready(said: Sequence[Mapping[str, Any]]) -> None:
    """Say which processes are ready."""
    say("ready", how=" ".join(str(each["pid"]) for each in said))


def say(event: str, *, how: str = "", reason: str = "", **_: Any) -> None:
    """Say what has happened, in a line."""
    sys.stdout.write(f"{event} {how}{reason}\n")
    sys.stdout.flush()


def work(pipe: int) -> int:
    """Be a worker, which no failing test leaves behind for long."""
    signal.alarm(30)
    behaviour, notes = supervisor.read_brief().decode().split()
    if behaviour == "first-dies":
        try:
            os.close(os.open(notes, os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            behaviour = "serve"
        else:
            behaviour = "die"
    match behaviour:
        case "die":
            return 7
        case "refuse":
            supervisor.report_refused(pipe, ["it cannot be"])
            return 2
        case "sleep":
            time.sleep(600)
        case _:
            pass
    orders: list[Order] = []
    supervisor.hear_orders(orders.append, orphan_seconds=0.2)
    supervisor.report_ready(pipe, {"pid": os.getpid()})
    while not orders or behaviour == "hang":
        time.sleep(0.01)
    with Path(notes).open("a", encoding="utf-8") as file:
        file.write(f"{orders[0].name}\n")
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "worker":
        sys.exit(work(int(sys.argv[2])))
    sys.exit(supervise(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
