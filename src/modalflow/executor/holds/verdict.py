"""The verdict of a gate on a call, and the interface of gates. No I/O."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from modalflow.executor.lifecycle.call import Call
from modalflow.executor.workloads import task_try_of
from modalflow.protocol.messages import Kind


@dataclass(frozen=True)
class Verdict:
    """Why a call may not be submitted."""

    reason: str
    short_reason: str
    """The reason for tables."""
    over: str
    """The end of the hold in words: ``its budget has money again``."""
    refuses: bool = False
    """Whether the call fails, instead of waiting."""
    passes: bool = False
    """Whether the reason may be gone within seconds."""
    paused_profile: str = ""
    """The profile, if a paused one is the reason."""


class Gate(Protocol):
    """A reason to hold or refuse calls. It does no I/O."""

    def verdict(self, call: Call) -> Verdict | None:
        """Return the verdict on a call; None if this gate lets it pass."""


def is_limited(call: Call) -> bool:
    """Return whether gates apply to a call: to tasks and commands, not to callbacks and connection tests."""
    return call.kind is Kind.COMMAND or task_try_of(call.key) is not None
