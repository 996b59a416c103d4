"""The key pair of a worker app for the secret settings of its Airflow hosts (``airflow_home.sealing``).

It is made once: containers of an earlier deployment and published snapshots must go on working.
"""

from __future__ import annotations

from typing import Any

import modal
from modal import exception

from modalflow.airflow_home.sealing import KeyPair
from modalflow.names import HOME_KEY_VARIABLE, Names
from modalflow.protocol.messages import Deployment


def public_key(names: Names, before: Deployment | None, **scope: Any) -> str:
    """Return the public key of an app, whose private key is in the app's Secret; make both if one is missing.

    ``before`` is the record of the previous deployment, ``scope`` holds the SDK's client and environment. Empty without
    the package ``cryptography``, a dependency of Airflow.
    """
    if before is not None and before.home_key and _has_secret(names, **scope):
        return before.home_key
    try:
        pair = KeyPair.new()
    except ImportError:
        return ""
    if _has_secret(names, **scope):
        # Its public key is lost: the record of the deployment is, or an older modalflow has replaced it.
        modal.Secret.objects.delete(names.home_key, **scope)
    modal.Secret.objects.create(names.home_key, {HOME_KEY_VARIABLE: pair.private}, **scope)
    return pair.public


def _has_secret(names: Names, **scope: Any) -> bool:
    try:
        modal.Secret.from_name(names.home_key, required_keys=[HOME_KEY_VARIABLE], **scope).hydrate()
    except (exception.NotFoundError, exception.InvalidError):
        return False
    return True
