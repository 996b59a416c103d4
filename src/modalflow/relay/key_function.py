"""The Function with the relay keys: only its containers have their Modal Secret.

A deployed Function refers to ``hand_over`` by the name of this module, so neither name may change.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping
from typing import Any

from modalflow.names import RELAY_KEY_PREFIX

PURPOSE = "a relay key for a relay"


def hand_over(request: dict[str, Any]) -> dict[str, Any]:
    """Return all keys, the newest last: id and public half; the private half only sealed.

    ``request["for"]`` is the public key (base64) of the recipient. Without it, no private half is returned.
    """
    from modalflow.relay.encryption import public_of, seal_for

    recipient = request.get("for") if isinstance(request, dict) else None
    keys = []
    for key_id, private in _keys(os.environ):
        key = {"id": key_id, "public": _text(public_of(private))}
        if isinstance(recipient, str):
            key["sealed"] = _text(seal_for(base64.b64decode(recipient), private, purpose=PURPOSE + key_id))
        keys.append(key)
    return {"keys": keys}


def _keys(environ: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """Yield the keys in the order of their ids, so the oldest first."""
    for name in sorted(environ):
        # The variable of a revoked key is empty.
        if name.startswith(RELAY_KEY_PREFIX) and environ[name]:
            try:
                yield name.removeprefix(RELAY_KEY_PREFIX), base64.b64decode(environ[name], validate=True)
            except binascii.Error:
                continue


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
