"""
Fuzzing that is guided by what each input reaches: ``python -m tests.fuzz --guided``, with `atheris` installed.

It needs a process per target, because libFuzzer ends the one that it runs in. What C does, as inside of msgspec, guides
nothing; where our own code reads bytes, more is reached in the same time.
"""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from tests.fuzz.mutation import MAX_BYTES

MISSING: Final = "--guided needs atheris (pip install atheris, for CPython 3.11 to 3.13 on Linux)"
INSTRUMENTED: Final = [
    f"roomkey.{name}"
    for name in ("audit", "documents.crdt", "domain", "realtime.protocol", "security", "transports.proxies", "wire")
]
"""What reads bytes in Python; to instrument all of Roomkey takes a minute."""

HANG_SECONDS: Final = 5
MAX_MIB: Final = 2_048


def is_possible() -> bool:
    """Whether atheris is installed."""
    return find_spec("atheris") is not None


def guide(name: str, seconds: float) -> int:
    """Fuzz one target in a process of its own; 0 if nothing was found."""
    return subprocess.run([sys.executable, "-m", __name__, name, str(max(1, int(seconds)))], check=False).returncode


def _run(name: str, seconds: str) -> None:
    import atheris  # noqa: PLC0415  # pyright: ignore[reportMissingImports, reportMissingModuleSource]  # optional

    library: Any = atheris
    with library.instrument_imports(include=INSTRUMENTED):
        from tests.fuzz.targets import TARGETS  # noqa: PLC0415
    target = TARGETS[name]

    def attempt(data: bytes) -> None:
        try:
            target.parse(data)
        except target.allowed:
            return
        except BaseException:
            print(f"    FOUND\n    --target {name} --input {data.hex()}")  # noqa: T201
            raise

    with TemporaryDirectory() as folder:
        for number, seed in enumerate(target.seeds):
            (Path(folder) / str(number)).write_bytes(seed)
        limits = [f"-max_total_time={seconds}", f"-max_len={MAX_BYTES}", f"-timeout={HANG_SECONDS}"]
        limits += [f"-rss_limit_mb={MAX_MIB}", f"-artifact_prefix={folder}/", "-print_final_stats=1"]
        library.Setup([name, *limits, folder], attempt)
        library.Fuzz()


if __name__ == "__main__":
    _run(*sys.argv[1:])
