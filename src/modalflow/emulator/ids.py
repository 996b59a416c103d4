"""Object ids in Modal's form: a prefix of two letters for the kind, then 22 random characters."""

from __future__ import annotations

import os
import string

_ALPHABET = (string.ascii_letters + string.digits).encode()

#: The character for each random byte. Some characters are a little more frequent than others: over 125 bits remain.
_CHARACTERS = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


def new_id(prefix: str) -> str:
    """Return a fresh id, for example ``fc-01J…`` for ``fc``. The SDK derives the kind of an object from the prefix."""
    return f"{prefix}-{os.urandom(22).translate(_CHARACTERS).decode()}"
