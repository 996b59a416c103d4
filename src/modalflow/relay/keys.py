"""The relay's keys: made at the deployment, kept in a Modal Secret, handed over to relays by a Function of the worker.

A key's id begins with the time of its making. The newest one encrypts new sessions. Relays accept older ones for a
while, so a rotation loses no running task.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import modal
from modal import exception

from modalflow.errors import ControlPlaneUnreachableError, MalformedMessageError, NotDeployedError
from modalflow.names import RELAY_KEY_FUNCTION, RELAY_KEY_PREFIX, Names
from modalflow.protocol.plain_data import plain_data_only
from modalflow.protocol.relay_report import NEWEST_KEY
from modalflow.support.described import describe

if TYPE_CHECKING:
    from modalflow.relay.encryption import KeyPair, PublicKey

#: How long a relay accepts a key after the next one was made. A function call can wait for a container, and then run,
#: a day each.
ACCEPTED_FOR = timedelta(hours=50)

_TIME = "%Y%m%dT%H%M%S"
_KEY_SIZE = 32

#: Seconds for the answer of the Function, with the start of its container.
PATIENCE = 120.0


def new_key(now: datetime | None = None) -> tuple[str, str]:
    """Return a new key as a variable of the Secret: name and value."""
    made_at = (now or datetime.now(UTC)).strftime(_TIME)
    key_id = f"{made_at}_{secrets.token_hex(4)}"
    # Any 32 bytes are a private key of X25519. So a machine without Airflow can deploy, without a library for it.
    return RELAY_KEY_PREFIX + key_id, base64.b64encode(secrets.token_bytes(_KEY_SIZE)).decode()


def make_secret(names: Names, **scope: Any) -> None:
    """Make the Secret with a first key, unless it exists. ``scope`` are keyword arguments of ``from_name``."""
    secret: Any = modal.Secret.from_name(names.relay_secret, **scope)
    try:
        secret.hydrate()
    except exception.NotFoundError:
        name, value = new_key()
        modal.Secret.objects.create(names.relay_secret, {name: value}, allow_existing=True, **scope)


def rotate(names: Names, **scope: Any) -> str:
    """Add a new key to the Secret; return its id. Raises NotDeployedError."""
    secret: Any = modal.Secret.from_name(names.relay_secret, **scope)
    name, value = new_key()
    try:
        secret.hydrate()
        secret.update({name: value})
        reports: Any = modal.Dict.from_name(names.relays, create_if_missing=True, **scope)
        reports.put(NEWEST_KEY, name.removeprefix(RELAY_KEY_PREFIX))
    except exception.NotFoundError as error:
        raise NotDeployedError(_NOT_DEPLOYED.format(app=names.app)) from error
    return name.removeprefix(RELAY_KEY_PREFIX)


_NOT_DEPLOYED = (
    "The worker app {app!r} has no relay key: it was deployed by an older modalflow, or without Airflow. Deploy it "
    "again: `modalflow deploy --app {app}`."
)


_NO_APP = (
    "There is no worker app {app!r}{environment}. Deploy it: `modalflow deploy --app {app}{option}`, or name another "
    "one with --app and --environment, or with [modal_executor] app_name and environment."
)


async def _not_deployed(names: Names, scope: Mapping[str, Any]) -> NotDeployedError:
    """Return the error for a Function that does not exist; most often, its app does not exist either."""
    environment = scope.get("environment_name")
    try:
        with plain_data_only():
            await modal.App.lookup.aio(names.app, **scope)
    except exception.NotFoundError:
        where = f" in Modal environment {environment!r}" if environment else ""
        option = f" --environment {environment}" if environment else ""
        return NotDeployedError(_NO_APP.format(app=names.app, environment=where, option=option))
    except (exception.Error, OSError, TimeoutError):
        # The app may exist.
        pass
    return NotDeployedError(_NOT_DEPLOYED.format(app=names.app))


@dataclass(frozen=True)
class KeyRing:
    """The accepted keys of a relay."""

    pairs: Mapping[str, KeyPair]

    @property
    def newest(self) -> PublicKey:
        return self.pairs[max(self.pairs)].public

    def accepted(self, key_id: str) -> KeyPair | None:
        """Return a key; None if it is unknown, or was replaced too long ago: a relay keeps its ring for months."""
        pair = self.pairs.get(key_id)
        if pair is None or key_id == max(self.pairs):
            return pair
        return pair if key_id in accepted_ids(list(self.pairs), datetime.now(UTC)) else None


async def fetch_keys(names: Names, **scope: Any) -> KeyRing:
    """Ask the Function for the keys, for this process alone.

    Raises NotDeployedError, ControlPlaneUnreachableError or MalformedMessageError.
    """
    from modalflow.relay import encryption
    from modalflow.relay.key_function import PURPOSE

    own = secrets.token_bytes(_KEY_SIZE)
    answer = await _ask(names, {"for": base64.b64encode(encryption.public_of(own)).decode()}, scope)
    accepted = accepted_ids([key["id"] for key in answer], datetime.now(UTC))
    pairs = {}
    for key in answer:
        if key["id"] in accepted:
            sealed = base64.b64decode(str(key.get("sealed") or ""))
            private = encryption.open_sealed(own, sealed, purpose=PURPOSE + key["id"])
            pairs[key["id"]] = encryption.KeyPair(key["id"], private)
    return KeyRing(pairs)


async def fetch_public_key(names: Names, **scope: Any) -> PublicKey:
    """Ask the Function for the public half of the newest key. Raises as ``fetch_keys`` does."""
    from modalflow.relay.encryption import PublicKey

    newest = max(await _ask(names, {}, scope), key=lambda key: key["id"])
    return PublicKey(newest["id"], base64.b64decode(newest["public"]))


async def _ask(names: Names, request: dict[str, Any], scope: Mapping[str, Any]) -> list[dict[str, str]]:
    function: Any = modal.Function.from_name(names.app, RELAY_KEY_FUNCTION, **scope)
    try:
        with plain_data_only():
            call = await function.spawn.aio(request)
            answer = await call.get.aio(timeout=PATIENCE)
    except exception.NotFoundError as error:
        raise await _not_deployed(names, scope) from error
    except (exception.AuthError, exception.ConnectionError):
        raise
    except (exception.Error, TimeoutError) as error:
        raise ControlPlaneUnreachableError(
            f"The Function {RELAY_KEY_FUNCTION!r} of {names.app!r} did not hand over the relay's key "
            f"({describe(error)}). Check its log: `modal app logs {names.app}`."
        ) from error
    keys = answer.get("keys") if isinstance(answer, dict) else None
    if not isinstance(keys, list) or not keys or not all(_is_key(key) for key in keys):
        raise MalformedMessageError(f"The Function {RELAY_KEY_FUNCTION!r} of {names.app!r} returned no relay keys")
    return keys


def _is_key(key: object) -> bool:
    return isinstance(key, dict) and all(isinstance(key.get(name), str) for name in ("id", "public"))


def accepted_ids(ids: Sequence[str], now: datetime) -> frozenset[str]:
    """Return the accepted keys: the newest, and those replaced a short time ago."""
    ordered = sorted(ids)
    accepted = set(ordered[-1:])
    for key_id, following in pairwise(ordered):
        replaced_at = made_at(following)
        if replaced_at is not None and now - replaced_at < ACCEPTED_FOR:
            accepted.add(key_id)
    return frozenset(accepted)


def made_at(key_id: str) -> datetime | None:
    """Return when a key was made; None for an id of another form."""
    try:
        return datetime.strptime(key_id.partition("_")[0], _TIME).replace(tzinfo=UTC)
    except ValueError:
        return None
