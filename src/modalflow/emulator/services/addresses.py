"""Presigned HTTP addresses to upload to and download from: a signed token in each one says what it allows.

Owns the signature, its key and the address of the HTTP server. No address is remembered: one that was made before a
restart of the control plane stays valid after it, until it expires.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from pathlib import Path

from modalflow.emulator.state import disk_space
from modalflow.emulator.state.state_dir import StateDir, write_private

#: Seconds for which an address is valid: a day is longer than any function call.
ADDRESS_LIFETIME = 24 * 3600.0

_KEY = "addresses.json"


class Addresses:
    """Makes addresses and reads their tokens. With a durable state folder, earlier addresses stay valid."""

    def __init__(self, state: StateDir) -> None:
        self.url = ""
        """The address of the HTTP server, e.g. ``http://127.0.0.1:43210``; empty before its start."""
        self._address = ("", 0)
        self._root = state.root
        self._path = state.root / _KEY
        self._is_kept = state.journal.is_durable
        self._kept: dict[str, str | int] = {}
        if self._is_kept and self._path.exists():
            try:
                self._kept = dict(json.loads(self._path.read_text()))
            except ValueError:
                # Only addresses in use are lost: their users request new ones.
                self._kept = {}
        self._key = bytes.fromhex(str(self._kept.get("key") or secrets.token_hex(32)))

    @property
    def port(self) -> int:
        """The port of earlier addresses, 0 if there were none."""
        return int(self._kept.get("port", 0))

    @property
    def address(self) -> tuple[str, int]:
        """The host and the port of the HTTP server, once it has started."""
        return self._address

    def listen(self, host: str, port: int) -> None:
        """Lead all further addresses to that host and port."""
        self._address = (host, port)
        self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        now: dict[str, str | int] = {"key": self._key.hex(), "port": port}
        if self._is_kept and now != self._kept:
            write_private(self._path, json.dumps(now))
            self._kept = now

    def upload(self, kind: str, what: str) -> str:
        """Return an address to upload one body to: the receiver of that kind gets it with ``what``."""
        return f"{self.url}/upload/{self.token(kind, what)}"

    def download(self, path: Path, offset: int, length: int) -> str:
        """Return an address to download those bytes of a file from; past the end of the file, zeros."""
        return f"{self.url}/download/{self.token('file', str(path.relative_to(self._root)), offset, length)}"

    def short_of(self, size: int) -> str:
        """Return why there is no room to receive that many bytes; empty if there is."""
        return disk_space.short_of(self._root, size)

    def token(self, *what: str | int) -> str:
        """Return a token that allows that."""
        body = json.dumps([time.time() + ADDRESS_LIFETIME, *what], separators=(",", ":")).encode()
        return f"{base64.urlsafe_b64encode(body).decode()}.{self._signature(body)}"

    def read(self, token: str) -> list[str | int]:
        """Return what a token allows; nothing if it is forged or has expired."""
        encoded, _, signature = token.partition(".")
        try:
            body = base64.urlsafe_b64decode(encoded)
        except (binascii.Error, ValueError):
            return []
        if not hmac.compare_digest(signature.encode(), self._signature(body).encode()):
            return []
        until, *what = json.loads(body)
        return what if until > time.time() else []

    def _signature(self, body: bytes) -> str:
        return hmac.new(self._key, body, hashlib.sha256).hexdigest()
