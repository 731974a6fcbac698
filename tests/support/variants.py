"""
Which promises of a suite the gate asks of a variant.

A variant is a store that differs in one way from another store, which keeps all the promises of the suite.
"""

from collections.abc import Mapping, Sequence
from typing import Final

VARIANTS: Final[Mapping[str, Sequence[str]]] = {
    # A call that holds the connection waits for itself, or for others that wait for it.
    "WithOneConnection": (
        *("at_once", "between", "everywhere", "follow", "lease", "many", "meanwhile", "mixed", "race", "together"),
        *("while", "whoever", "winner", "who_"),
    ),
    # Other bytes are stored, and longer ones.
    "Sealed": (
        "any_size",
        "damaged",
        "kept",
        "large",
        "meets",
        "opened",
        "read",
        "secret",
        "snapshot",
        "torn",
        "version",
    ),
    # Another way to the same server.
    "Sentinel": ("as_it_was", "at_once", "deleted", "follow", "many", "opened", "race", "revo", "whoever", "winner"),
}
"""Words in the name of a class, and those in the names of the tests that its difference may break."""


def is_in_gate(suite: str, test: str) -> bool:
    """Whether the gate runs this test of the class ``suite``; ``script/explore`` runs the others."""
    return all(any(word in test for word in words) for name, words in VARIANTS.items() if name in suite)
