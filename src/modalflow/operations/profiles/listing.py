"""The profiles of a deployment with their work, and which are paused. No I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from modalflow.operations.inventory import STATES, Inventory, ProfileState
from modalflow.operations.profiles.draining import remaining
from modalflow.protocol.profile_holds import DRAINING, ProfileHold

#: The states of a profile besides those of a hold. A drained one is a draining one in which nothing runs.
ACTIVE, DRAINED = "active", "drained"


@dataclass(frozen=True)
class ProfileRow:
    """One profile."""

    profile: str
    state: str
    """ACTIVE, DRAINED, or the mode of its hold."""
    containers: int = 0
    """Of tasks without options of their own, by Modal's figures."""
    backlog: int = 0
    running: int = 0
    submitted: int = 0
    waiting: int = 0
    hold: ProfileHold | None = None
    problem: str = ""
    """Why the figures are missing."""


def profile_rows(inventory: Inventory) -> list[ProfileRow]:
    """Return the deployed profiles, and then paused ones that are no longer deployed."""
    deployed = {state.name for state in inventory.profiles}
    gone = [hold for name, hold in inventory.holds.by_profile.items() if name not in deployed]
    return [
        *(_row(inventory, state) for state in inventory.profiles),
        *(_row(inventory, ProfileState(hold.profile, problem="not deployed", hold=hold)) for hold in gone),
    ]


def _row(inventory: Inventory, profile: ProfileState) -> ProfileRow:
    state = ACTIVE
    work: Mapping[str, int] = inventory.totals().get(profile.name, {})
    running, submitted, waiting = (work.get(each, 0) for each in STATES)
    if profile.hold is not None:
        left = remaining(inventory, profile.hold)
        running, submitted, waiting = left.running, left.submitted, left.waiting
        state = DRAINED if profile.hold.mode == DRAINING and left.done else profile.hold.mode
    return ProfileRow(
        profile.name,
        state,
        profile.containers,
        profile.backlog,
        running,
        submitted,
        waiting,
        profile.hold,
        profile.problem,
    )
