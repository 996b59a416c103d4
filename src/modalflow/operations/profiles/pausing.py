"""Pause and resume profiles, by one text in the Dict of executors' reports. Every executor of the app follows.

Two commands at the same time take turns, by a token in the Dict. A token that stays is that of a killed command, and is
removed.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import modal
from modal import exception

from modalflow.errors import ModalflowError
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEFAULT_PROFILE
from modalflow.operations.site import PATIENCE, Site, not_deployed, within
from modalflow.protocol.profile_holds import (
    DRAINING,
    HOLDS,
    HOLDS_LOCK,
    LONGEST_NAME,
    LONGEST_REASON,
    PAUSED,
    ProfileHold,
    ProfileHolds,
)
from modalflow.support.text import one_line

#: Seconds until the token of another command counts as left behind, and between two attempts to get the turn.
STALE = 15.0
_POLL = 0.2


class UnknownProfileError(ModalflowError):
    """The profile is not deployed."""


@dataclass(frozen=True)
class Change:
    """The result of a command."""

    hold: ProfileHold | None
    """The hold afterwards; None if the profile is not paused."""
    before: ProfileHold | None

    @property
    def changed(self) -> bool:
        return self.hold != self.before


def read_holds(site: Site) -> ProfileHolds:
    """Return the paused profiles. Raises the SDK's errors or TimeoutError."""
    try:
        return _read(_dict(site, create=False))
    except exception.NotFoundError:
        # No executor has ever reported, and no profile was ever paused.
        return ProfileHolds()


def pause(site: Site, profile: str, by: str, reason: str = "", *, drain: bool = False) -> Change:
    """Pause a profile: executors submit no more tasks to it within ``profile_holds.INTERVAL`` seconds.

    Tasks without a container are taken off Modal again; running ones go on. ``by`` is the user's name for others, and
    ``drain`` is for a caller who then waits with ``draining``. A profile that is paused in the same way stays as it is,
    unless there is another reason.

    Raises UnknownProfileError, naming the deployed profiles; NotDeployedError; the SDK's errors; TimeoutError.
    """
    _check(profile, deployed_profiles(site))
    mode = DRAINING if drain else PAUSED
    by, reason = one_line(by, LONGEST_NAME), one_line(reason, LONGEST_REASON)
    executors = _dict(site, create=True)
    with _turn(executors):
        holds = _read(executors)
        before = holds.by_profile.get(profile)
        if before is not None and before.mode == mode and reason in ("", before.reason):
            return Change(before, before)
        hold = ProfileHold(profile, by, round(time.time(), 3), reason, mode)
        _write(executors, holds.with_hold(hold))
    return Change(hold, before)


def resume(site: Site, profile: str) -> Change:
    """Resume a profile: its waiting tasks go on within ``profile_holds.INTERVAL`` seconds.

    A paused profile can be resumed even if it is no longer deployed. Raises as ``pause`` does.
    """
    before = None
    with contextlib.suppress(exception.NotFoundError):
        before = _resumed(_dict(site, create=False), profile)
    if before is None:
        _check(profile, deployed_profiles(site))
    return Change(None, before)


def _resumed(executors: Any, profile: str) -> ProfileHold | None:
    with _turn(executors):
        holds = _read(executors)
        before = holds.by_profile.get(profile)
        if before is not None or holds.problem:
            _write(executors, holds.without(profile))
    return before


def deployed_profiles(site: Site) -> Sequence[str]:
    """Return the profiles of the deployed worker. Raises NotDeployedError, the SDK's errors or TimeoutError."""
    record = within(PATIENCE, LogVolume(site.control_plane, site.names, create=False).deployment)
    if record is not None:
        return record.profiles
    function: Any = modal.Function.from_name(site.names.app, site.names.function(DEFAULT_PROFILE), **site.scope)
    try:
        within(PATIENCE, function.hydrate)
    except exception.NotFoundError as error:
        raise not_deployed(site, error) from error
    return (DEFAULT_PROFILE,)


def _check(profile: str, deployed: Sequence[str]) -> None:
    if profile not in deployed:
        raise UnknownProfileError(
            f"Profile {one_line(profile, LONGEST_NAME)!r} is not deployed; deployed profiles: {', '.join(deployed)}"
        )


def _dict(site: Site, *, create: bool) -> Any:
    return modal.Dict.from_name(site.names.executors, create_if_missing=create, **site.scope)


def _read(executors: Any) -> ProfileHolds:
    try:
        return ProfileHolds.from_json(within(PATIENCE, lambda: executors.get(HOLDS)))
    except exception.DeserializationError:
        return ProfileHolds(problem="it is no plain data")


def _write(executors: Any, holds: ProfileHolds) -> None:
    within(PATIENCE, lambda: executors.put(HOLDS, holds.to_json()))


@contextlib.contextmanager
def _turn(executors: Any) -> Iterator[None]:
    """Keep other commands from changing the text between this one's reading and writing."""
    token = uuid.uuid4().hex
    seen: object = None
    seen_at = time.monotonic()
    while not within(PATIENCE, lambda: executors.put(HOLDS_LOCK, token, skip_if_exists=True)):
        found = _token(executors)
        if found == token:
            # The answer to a first attempt was lost.
            break
        if found != seen:
            seen, seen_at = found, time.monotonic()
        elif time.monotonic() - seen_at > STALE:
            within(PATIENCE, lambda: executors.pop(HOLDS_LOCK, None))
        time.sleep(_POLL)
    try:
        yield
    finally:
        # If this command was slow, another one may have taken its token for one that was left behind.
        if _token(executors) == token:
            within(PATIENCE, lambda: executors.pop(HOLDS_LOCK, None))


def _token(executors: Any) -> object:
    try:
        return within(PATIENCE, lambda: executors.get(HOLDS_LOCK))
    except exception.DeserializationError:
        return "unreadable"
