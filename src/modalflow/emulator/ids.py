"""Object ids in Modal's form: a two-letter prefix that tells the kind, then 22 random characters."""

from __future__ import annotations

import os
import string

_ALPHABET = (string.ascii_letters + string.digits).encode()

#: What each random byte stands for. Some characters are a little more frequent than others: over 125 bits remain.
_CHARACTERS = bytes(_ALPHABET[byte % len(_ALPHABET)] for byte in range(256))


def new_id(prefix: str) -> str:
    """Return a fresh id, for example ``fc-01J…`` for ``fc``. The SDK reads the kind of an object off its prefix."""
    return f"{prefix}-{os.urandom(22).translate(_CHARACTERS).decode()}"
