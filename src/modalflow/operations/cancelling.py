"""Cancellation of work by a user, with the user's name and the reason for Airflow.

For work without a container, it takes the claim and sends an event to the executor. For running work, it cancels the
function call, and a note in the ledger has the user's name for the executor.
"""

from __future__ import annotations

import contextlib
import getpass
import socket
import time
import uuid
from dataclasses import dataclass
from typing import Any

import modal
from modal import exception

from modalflow import __version__
from modalflow.errors import MalformedMessageError
from modalflow.names import CANCELLED_BY
from modalflow.operations.inventory import Work
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.protocol.messages import Entry, State
from modalflow.reasons import Cause, explain

#: Longest wait for the end of running work, in seconds. A task has 5 s for its on_kill(), and is then killed.
END_TIMEOUT = 30.0
_POLL = 0.25


@dataclass(frozen=True)
class Ended:
    """The result of a cancellation."""

    how: str
    """A sentence's end: "ended after 1.2 s"."""
    done: bool
    """Whether nothing of it runs any more, and nothing will."""


def user_here() -> str:
    """Return the user of this terminal, ``alice@laptop``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = "somebody"
    return f"{user}@{socket.gethostname()}"


def who() -> str:
    """Return who cancels work from this terminal."""
    return f"cancelled by {user_here()} with modalflow cancel"


def cancel(site: Site, work: Work, by: str) -> Ended:
    """End one work id. Harmless where it has ended already, or is ended twice."""
    ledger: Any = modal.Dict.from_name(site.names.ledger, **site.scope)
    note = CANCELLED_BY + work.work_id
    within(PATIENCE, lambda: ledger.put(note, by))
    barrier = _barrier(work, by)
    within(PATIENCE, lambda: ledger.put(work.work_id, barrier.to_json(), skip_if_exists=True))
    found = _entry(ledger, work.work_id)
    if found is None or (found.owner != barrier.owner and found.state is not State.RUNNING):
        within(PATIENCE, lambda: ledger.pop(note, None))
        return Ended("had already ended", True)
    if found.owner == barrier.owner:
        within(PATIENCE, lambda: ledger.pop(note, None))
        _publish(site, barrier)
        _cancel_call(site, work.function_call_id)
        return Ended("had not begun, and will not begin", True)
    began = time.monotonic()
    for function_call_id in {work.function_call_id, found.function_call_id}:
        _cancel_call(site, function_call_id)
    while time.monotonic() - began < END_TIMEOUT:
        now = _entry(ledger, work.work_id)
        if now is None or now.state is not State.RUNNING:
            return Ended(f"ended after {time.monotonic() - began:.1f} s", True)
        time.sleep(_POLL)
    return Ended(f"did not end within {END_TIMEOUT:g} s; its container may be gone", False)


def _barrier(work: Work, by: str) -> Entry:
    reason = explain(Cause.BY_HAND, detail=by, call=work.function_call_id)
    return Entry(
        work_id=work.work_id,
        state=State.FAILED,
        function_call_id=work.function_call_id,
        container_id="",
        owner=f"cancel-{uuid.uuid4().hex}",
        label=work.label,
        partition=work.partition,
        finished_at=time.time(),
        reason=reason,
        cause=reason.cause.value,
        worker_version=__version__,
    )


def _entry(ledger: Any, work_id: str) -> Entry | None:
    try:
        text = within(PATIENCE, lambda: ledger.get(work_id))
        return None if text is None else Entry.from_json(text)
    except (MalformedMessageError, exception.DeserializationError):
        # An unreadable entry has no information. Its executor finds and reports it.
        return None


def _publish(site: Site, entry: Entry) -> None:
    """Let the executor know at once; without the event its sweep finds the entry."""
    if entry.partition:
        events: Any = modal.Queue.from_name(site.names.events, **site.scope)
        with contextlib.suppress(exception.Error, TimeoutError):
            within(PATIENCE, lambda: events.put(entry.to_json(), block=False, partition=entry.partition))


def _cancel_call(site: Site, function_call_id: str) -> None:
    if function_call_id:
        call: Any = modal.FunctionCall.from_id(function_call_id, client=site.control_plane.client)
        with contextlib.suppress(exception.NotFoundError):
            within(PATIENCE, call.cancel)
