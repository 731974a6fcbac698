"""The benchmarks work: each runs with tiny numbers, says what it found, and leaves nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import psutil
import pytest

from benchmarks.harness import Result
from benchmarks.processes import running
from benchmarks.run_all import NAMES

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
LIMIT_SECONDS = 300  # with the peers to be installed


@pytest.mark.parametrize("name", NAMES)
def test_a_benchmark_runs_and_prints_what_it_found_as_json(name: str) -> None:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--json", "-"]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LIMIT_SECONDS, check=False)

    assert done.returncode == 0, done.stderr.decode()
    result = msgspec.json.decode(done.stdout, type=Result)
    assert result.benchmark == name
    assert any(row.figures for row in result.finding.rows)
    assert all(row.figures or row.skipped for row in result.finding.rows)
    assert all(value >= 0 for row in result.finding.rows for figure in row.figures.values() for value in figure.values)


def test_a_folder_for_the_result_that_does_not_exist_is_made(tmp_path: Path) -> None:
    file = tmp_path / "new" / "result.json"
    command = [sys.executable, "-m", "benchmarks.start", "--quick", "--json", str(file)]

    subprocess.run(command, cwd=ROOT, capture_output=True, timeout=LIMIT_SECONDS, check=True)

    assert msgspec.json.decode(file.read_bytes(), type=Result).benchmark == "start"


def test_why_a_server_has_ended_is_said() -> None:
    def lose_it() -> None:
        code = "import sys; print('listening on 1', flush=True); sys.exit('its disk ' + 'is full')"
        with running([sys.executable, "-c", code]) as server:
            server.process.wait(LIMIT_SECONDS)
            raise ConnectionRefusedError

    with pytest.raises(RuntimeError, match="its disk is full"):
        lose_it()


def test_why_a_server_does_not_start_is_said() -> None:
    code = "import sys; sys.exit('its port ' + 'is taken')"

    with pytest.raises(RuntimeError, match="its port is taken"), running([sys.executable, "-c", code]):
        pytest.fail("it did not start")


def test_a_benchmark_that_is_told_to_stop_ends_what_it_started() -> None:
    benchmark = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.revocation", "--rounds", "1000"], cwd=ROOT, stdout=subprocess.DEVNULL
    )
    deadline = time.monotonic() + 60
    started: list[psutil.Process] = []
    while not any("roomkey" in process.cmdline() for process in started) and time.monotonic() < deadline:
        started = psutil.Process(benchmark.pid).children(recursive=True)
    assert started

    benchmark.send_signal(signal.SIGTERM)
    code = benchmark.wait(60)

    assert code == 128 + signal.SIGTERM
    assert not any(process.is_running() for process in started)
