"""Encryption of the relay's messages, from the primitives of `cryptography`.

Each relay key is an X25519 key pair. A container makes a pair of its own for each of them, its session, and derives two
keys from both: one for its requests, one for the answers. So only a relay reads its requests, only this container reads
the answers, and no other container can answer for a relay. Contents are encrypted with ChaCha20-Poly1305, which also
authenticates the header: direction, session, request, attempt, part and time.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from modalflow.errors import MalformedMessageError
from modalflow.relay.messages import Direction, Header, pack

#: Bytes of a key, private or public.
KEY_SIZE = 32
_NONCE_SIZE = 12
_SESSION_DIGITS = 32


class NotAuthenticError(MalformedMessageError):
    """A message without the key, or changed on the way."""


@dataclass(frozen=True)
class PublicKey:
    """The public half of a relay key. Containers encrypt for it."""

    id: str
    raw: bytes

    def __str__(self) -> str:
        return f"{self.id}:{self.raw.hex()}"

    @classmethod
    def read(cls, text: str) -> PublicKey:
        """Return the key of ``str()``; raise MalformedMessageError for any other text."""
        key_id, _, digits = text.partition(":")
        try:
            raw = bytes.fromhex(digits)
        except ValueError:
            raw = b""
        if not key_id or len(raw) != KEY_SIZE:
            raise MalformedMessageError("A relay key in a submission is none")
        return cls(key_id, raw)


@dataclass(frozen=True)
class KeyPair:
    """A relay key."""

    id: str
    private: bytes = field(repr=False)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self.id, public_of(self.private))


def public_of(private: bytes) -> bytes:
    """Return the public half of a private key."""
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def session_name(public: bytes) -> str:
    """Return the name of a session: no two public keys have the same."""
    return hashlib.sha256(b"modalflow relay session\0" + public).hexdigest()[:_SESSION_DIGITS]


@dataclass(frozen=True)
class SessionKeys:
    """The keys of one session."""

    request: ChaCha20Poly1305 = field(repr=False)
    answer: ChaCha20Poly1305 = field(repr=False)

    @classmethod
    def derive(cls, private: bytes, theirs: bytes, *, key_id: str, session: bytes, relay: bytes) -> SessionKeys:
        """Derive them on one side, from its private key and the other's public key.

        ``session`` and ``relay`` are the two public keys. Raises NotAuthenticError for a public key that is none.
        """
        try:
            shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(theirs))
        except ValueError as error:
            raise NotAuthenticError("A message of the relay names a key that is none") from error
        info = b"modalflow relay 1\0" + key_id.encode() + b"\0" + session + relay
        derived = HKDF(SHA256(), 2 * KEY_SIZE, salt=None, info=info).derive(shared)
        return cls(ChaCha20Poly1305(derived[:KEY_SIZE]), ChaCha20Poly1305(derived[KEY_SIZE:]))

    def of(self, direction: Direction) -> ChaCha20Poly1305:
        return self.request if direction is Direction.REQUEST else self.answer

    def seal(self, header: Header, content: bytes | memoryview) -> bytes:
        """Return the item with this header and content."""
        authenticated, nonce = header.to_bytes(), os.urandom(_NONCE_SIZE)
        return pack(authenticated, nonce + self.of(header.direction).encrypt(nonce, content, authenticated))

    def open(self, direction: Direction, header: bytes, sealed: bytes) -> bytes:
        """Return the content of an item; raise NotAuthenticError if it is not authentic."""
        try:
            return self.of(direction).decrypt(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:], header)
        except (InvalidTag, ValueError) as error:
            raise NotAuthenticError("A message of the relay is not authentic") from error


class Session:
    """A container's side: its key pair for one relay key."""

    def __init__(self, relay: PublicKey) -> None:
        private = X25519PrivateKey.generate().private_bytes_raw()
        self.public = public_of(private)
        self.name = session_name(self.public)
        self.key_id = relay.id
        self.keys = SessionKeys.derive(private, relay.raw, key_id=relay.id, session=self.public, relay=relay.raw)


def keys_of_session(pair: KeyPair, public: bytes) -> SessionKeys:
    """Return a session's keys on the relay's side."""
    return SessionKeys.derive(pair.private, public, key_id=pair.id, session=public, relay=pair.public.raw)


class KnownSessions:
    """The keys of the newest sessions on the relay's side, each derived once."""

    def __init__(self, most: int = 10_000) -> None:
        self._most = most
        self._known: OrderedDict[tuple[str, str], SessionKeys] = OrderedDict()

    def keys(self, pair: KeyPair, session: str, public: str) -> SessionKeys:
        """Return a session's keys. ``public`` is its public key in hexadecimal digits. Raises NotAuthenticError."""
        known = self._known.get((session, pair.id))
        if known is not None:
            return known
        try:
            raw = bytes.fromhex(public)
        except ValueError as error:
            raise NotAuthenticError("A session has no public key") from error
        if session_name(raw) != session:
            raise NotAuthenticError("A session has the public key of another one")
        keys = self._known[session, pair.id] = keys_of_session(pair, raw)
        if len(self._known) > self._most:
            self._known.popitem(last=False)
        return keys

    def clear(self) -> None:
        """Forget all: a key may no longer be accepted."""
        self._known.clear()


def seal_for(recipient: bytes, secret: bytes, *, purpose: str) -> bytes:
    """Encrypt a secret for the holder of a private key, by a pair made for this alone."""
    own = X25519PrivateKey.generate()
    public = own.public_key().public_bytes_raw()
    cipher = _handed_over(own.exchange(X25519PublicKey.from_public_bytes(recipient)), public, recipient)
    nonce = os.urandom(_NONCE_SIZE)
    return public + nonce + cipher.encrypt(nonce, secret, purpose.encode())


def open_sealed(private: bytes, sealed: bytes, *, purpose: str) -> bytes:
    """Return the secret of ``seal_for``; raise NotAuthenticError for anything else."""
    public, nonce, rest = sealed[:KEY_SIZE], sealed[KEY_SIZE : KEY_SIZE + _NONCE_SIZE], sealed[KEY_SIZE + _NONCE_SIZE :]
    try:
        shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(public))
        return _handed_over(shared, public, public_of(private)).decrypt(nonce, rest, purpose.encode())
    except (InvalidTag, ValueError) as error:
        raise NotAuthenticError("A relay key was not handed over as it was sent") from error


def _handed_over(shared: bytes, sender: bytes, recipient: bytes) -> ChaCha20Poly1305:
    info = b"modalflow relay key 1\0" + sender + recipient
    return ChaCha20Poly1305(HKDF(SHA256(), KEY_SIZE, salt=None, info=info).derive(shared))
