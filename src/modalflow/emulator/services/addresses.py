"""Addresses that are all the right their user needs, as presigned ones are: what may be done stands in them, signed.

Owns the signature and its key. Nothing is remembered of an address: one that was given out before a restart of the
control plane is good after it, for as long as it says.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time

from modalflow.emulator.state.store import StateDir, write_private

#: Seconds for which an address is good, a day being longer than any function call.
ADDRESS_LIFETIME = 24 * 3600.0

_KEY = "addresses.json"


class Addresses:
    """Makes and reads the tokens of addresses; with a state folder that stays, also those of before."""

    def __init__(self, state: StateDir) -> None:
        self._path = state.root / _KEY
        self._is_kept = state.journal.is_durable
        self._kept: dict[str, str | int] = {}
        if self._is_kept and self._path.exists():
            try:
                self._kept = dict(json.loads(self._path.read_text()))
            except ValueError:
                # Only addresses under way are lost: their users ask for new ones.
                self._kept = {}
        self._key = bytes.fromhex(str(self._kept.get("key") or secrets.token_hex(32)))

    @property
    def port(self) -> int:
        """The port that the addresses of before lead to, 0 if there were none."""
        return int(self._kept.get("port", 0))

    def keep(self, port: int) -> None:
        """Addresses lead to that port from now on."""
        now: dict[str, str | int] = {"key": self._key.hex(), "port": port}
        if self._is_kept and now != self._kept:
            write_private(self._path, json.dumps(now))
            self._kept = now

    def token(self, *what: str | int) -> str:
        """Return what stands in an address that allows that."""
        said = json.dumps([time.time() + ADDRESS_LIFETIME, *what], separators=(",", ":")).encode()
        return f"{base64.urlsafe_b64encode(said).decode()}.{self._signature(said)}"

    def read(self, token: str) -> list[str | int]:
        """Return what a token allows; nothing if it is none of ours, or too old."""
        encoded, _, signature = token.partition(".")
        try:
            said = base64.urlsafe_b64decode(encoded)
        except (binascii.Error, ValueError):
            return []
        if not hmac.compare_digest(signature.encode(), self._signature(said).encode()):
            return []
        until, *what = json.loads(said)
        return what if until > time.time() else []

    def _signature(self, said: bytes) -> str:
        return hmac.new(self._key, said, hashlib.sha256).hexdigest()
