"""Encryption of the secret settings of an Airflow host for the containers of one worker app.

`modalflow deploy` makes a key pair once. The private key is a Modal Secret of the app's Functions, the public key is in
the record of the deployment. Fernet encrypts the settings under a key of their own, and RSA (OAEP) encrypts that key.
The fingerprint in the snapshot's id is salted: no one can guess a password and compare. ``cryptography`` is imported at
its use, because a container without secret settings needs none of it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import dataclass, field
from typing import Any

from modalflow.airflow_home.snapshot import SealedSettings, Settings, canonical, checked_settings
from modalflow.errors import HomeError
from modalflow.support.described import describe

_KEY_BITS = 3072
_EXPONENT = 65537
_SALT_BYTES = 32


@dataclass(frozen=True)
class KeyPair:
    """The keys of a worker app, each as one line of base64 (DER)."""

    private: str = field(repr=False)
    public: str

    @classmethod
    def new(cls) -> KeyPair:
        """Return a new key pair. Raises ImportError without the package ``cryptography``."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import rsa

        key = rsa.generate_private_key(_EXPONENT, _KEY_BITS)
        private = key.private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return cls(base64.b64encode(private).decode(), base64.b64encode(public).decode())


def key_id(public: str) -> str:
    """Return the id of a public key."""
    return hashlib.sha256(public.encode()).hexdigest()[:32]


def salt_of(secret: str) -> bytes:
    """Return the salt of a host's fingerprints. ``secret`` is common to its schedulers, and no container gets it."""
    return hmac.digest(secret.encode(), b"modalflow: salt of the fingerprints of Airflow homes", "sha256")


def seal(settings: Settings, public: str, salt: bytes) -> SealedSettings:
    """Encrypt settings for the owner of a public key; raise HomeError if it is no public key."""
    from cryptography.fernet import Fernet
    from cryptography.hazmat.primitives import serialization

    plain = canonical({section: dict(options) for section, options in settings.items()})
    try:
        key: Any = serialization.load_der_public_key(base64.b64decode(public, validate=True))
        own = Fernet.generate_key()
        wrapped = key.encrypt(own, _oaep())
    except Exception as error:
        raise HomeError(
            f"The public key in the record of the deployed worker is malformed ({describe(error)}). Deploy again: "
            "`modalflow deploy`."
        ) from error
    return SealedSettings(
        key_id(public),
        _fingerprint(salt, plain),
        base64.b64encode(wrapped).decode(),
        Fernet(own).encrypt(salt[:_SALT_BYTES] + plain).decode(),
    )


def unseal(sealed: SealedSettings, private: str) -> dict[str, dict[str, str]]:
    """Return the settings; raise HomeError, if they cannot be decrypted or were changed."""
    if not private:
        raise HomeError(
            "This container has no key for the secret settings of the Airflow host. Deploy again: `modalflow deploy`."
        )
    from cryptography.fernet import Fernet, InvalidToken
    from cryptography.hazmat.primitives import serialization

    try:
        # The key is modalflow's own: to check its primes takes a tenth of a second at the start of each container.
        key: Any = serialization.load_der_private_key(
            base64.b64decode(private, validate=True), None, unsafe_skip_rsa_key_validation=True
        )
        own = key.decrypt(base64.b64decode(sealed.wrapped_key, validate=True), _oaep())
        content = Fernet(own).decrypt(sealed.text.encode())
    except (InvalidToken, TypeError, ValueError, binascii.Error) as error:
        raise HomeError(
            f"The secret settings of the Airflow host were encrypted for key {sealed.key_id}, and this container "
            f"cannot decrypt them ({type(error).__name__}). If the worker was deployed again meanwhile, restart the "
            "scheduler."
        ) from error
    salt, plain = content[:_SALT_BYTES], content[_SALT_BYTES:]
    if not hmac.compare_digest(_fingerprint(salt, plain), sealed.fingerprint):
        raise HomeError(
            "The secret settings of the Airflow host have another content than the scheduler published. Restart the "
            "scheduler to publish them again, and find out who writes to the logs Volume."
        )
    try:
        return checked_settings(json.loads(plain))
    except (AttributeError, TypeError, ValueError):
        raise HomeError("The secret settings of the Airflow host are malformed. Restart the scheduler.") from None


def _fingerprint(salt: bytes, plain: bytes) -> str:
    return hmac.new(salt, plain, "sha256").hexdigest()


def _oaep() -> Any:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding

    return padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
