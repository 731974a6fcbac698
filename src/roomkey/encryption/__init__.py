"""
Encryption at rest: what leaves the process for a storage is sealed, under keys that the storage does not have.

A key-encryption key outside the storage wraps data keys, which lie in it; a data key seals records. What belongs to
one person can be sealed under a key of that person besides, whose end is the end of all that.
"""
