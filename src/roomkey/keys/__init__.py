"""
API keys that are made while the server runs: stored as hashes, and the same on every node.

``records`` is what is stored of a key and what can become of it, pure; ``table`` finds the key that somebody presents;
``registry`` is the commands.
"""

from roomkey.keys.records import LONGEST_OVERLAP, MAX_KEYS, NAME_PATTERN
from roomkey.keys.registry import DEFAULT_OVERLAP, KeyRegistry, ListedKey
from roomkey.keys.table import REVOKED_WITHIN

__all__ = [
    "DEFAULT_OVERLAP",
    "LONGEST_OVERLAP",
    "MAX_KEYS",
    "NAME_PATTERN",
    "REVOKED_WITHIN",
    "KeyRegistry",
    "ListedKey",
]
