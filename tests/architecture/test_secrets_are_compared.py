"""How long a comparison takes says nothing about a secret (CWE-208): none is compared with ``==``."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import roomkey

PACKAGE = Path(roomkey.__file__).parent
PLACES = ["security", "keys", "sessions", "issuers", "api"]

SECRET = re.compile(
    r"(?<![a-z])(token|digest|secret|seal|signature|mac|hash|nonce|ticket|password)s?(?![a-z])", re.IGNORECASE
)
HARMLESS = re.compile(r"\blen\(|session_of\(|\bis None\b|\.generation\b")
"""Lengths, ids and generations are no secrets, nor whether there is one."""


def comparisons(code: str) -> Iterator[str]:
    """What is compared with ``==`` or ``!=``, and sounds like a secret."""
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Compare) and any(isinstance(each, ast.Eq | ast.NotEq) for each in node.ops):
            text = ast.unparse(node)
            if SECRET.search(text.replace("_", " ")) and not HARMLESS.search(text):
                yield text


@pytest.mark.parametrize("place", PLACES)
def test_no_secret_is_compared_in_a_time_that_depends_on_it(place: str) -> None:
    files = sorted((PACKAGE / place).rglob("*.py"))

    assert files
    found = {str(file.relative_to(PACKAGE)): [*comparisons(file.read_text(encoding="utf-8"))] for file in files}
    assert {file: texts for file, texts in found.items() if texts} == {}


@pytest.mark.parametrize("code", ["digest == self.digest", "stored.token_hash != hash", "a.seal == b", "x == secret"])
def test_such_a_comparison_would_be_found(code: str) -> None:
    assert [*comparisons(code)] == [code]


def test_digests_are_compared_by_the_library() -> None:
    for module in ("security/tokens.py", "security/apikeys.py", "security/csrf.py", "keys/records.py"):
        assert "hmac.compare_digest(" in (PACKAGE / module).read_text(encoding="utf-8"), module
