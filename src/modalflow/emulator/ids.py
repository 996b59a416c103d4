"""Object ids in Modal's form: a two-letter prefix that tells the kind, then 22 random characters."""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_letters + string.digits


def new_id(prefix: str) -> str:
    """Return a fresh id, for example ``fc-01J…`` for ``fc``. The SDK reads the kind of an object off its prefix."""
    return f"{prefix}-" + "".join(secrets.choice(_ALPHABET) for _ in range(22))
