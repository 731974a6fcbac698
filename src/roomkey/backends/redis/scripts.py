"""The Lua scripts: each is a command of ours, in a file of its own, that Redis carries out as one atomic step."""

import re
from collections.abc import Sequence
from functools import cache
from hashlib import sha1
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "scripts"

_PART: Final = re.compile(r"^-- with (?P<name>[a-z_]+)\n", re.MULTILINE)
"""A line of a script in whose place that part stands."""


@cache
def _text(name: str) -> str:
    text = (FOLDER / f"{name}.lua").read_text(encoding="utf-8")
    return _PART.sub(lambda match: _text(f"parts/{match['name']}"), text)


class Script:
    """
    A script, by the name of its file without ``.lua``.

    ``digest`` is what the server knows it by. In the file, ``-- with header`` stands for ``parts/header.lua``.
    """

    __slots__ = ("digest", "name", "source")

    def __init__(self, name: str) -> None:
        self.name = name
        self.source = _text(name).encode()
        self.digest = sha1(self.source, usedforsecurity=False).hexdigest().encode()

    def call(self, keys: Sequence[bytes], arguments: Sequence[bytes | int | str]) -> tuple[bytes | int | str, ...]:
        """The command that runs it."""
        return (b"EVALSHA", self.digest, len(keys), *keys, *arguments)
