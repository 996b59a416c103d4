"""What is left to wait for until nothing runs in a paused profile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from modalflow.errors import ModalflowError
from modalflow.operations.inventory import RUNNING, Inventory, take_inventory
from modalflow.operations.site import Site
from modalflow.protocol.profile_holds import INTERVAL, ProfileHold
from modalflow.protocol.snapshot import SUBMITTED, WAITING, Snapshot

#: Seconds between two checks.
POLL = 2.0
#: Seconds after a pause in which an executor without reports may still submit what it took before.
_GRACE = 3 * INTERVAL


class ResumedError(ModalflowError):
    """Another user resumed the profile during the wait."""


@dataclass(frozen=True)
class Remaining:
    """The work that a paused profile still has, and the executors that may add to it."""

    running: int = 0
    """Work in a container."""
    submitted: int = 0
    """Work on Modal without a known container: it is recalled, or begins."""
    waiting: int = 0
    """Work that waits for the end of the pause."""
    unknown: int = 0
    """Running or submitted work of an unknown profile, such as adopted work of older versions."""
    unnoticed: tuple[str, ...] = ()
    """Executors that have not noticed the pause yet."""
    too_old: tuple[str, ...] = ()
    """Executors whose modalflow cannot pause profiles: they go on."""
    is_early: bool = False
    """Whether an executor without reports may not have noticed it yet."""

    @property
    def done(self) -> bool:
        """Whether nothing runs, and nothing will until the profile is resumed."""
        return self == Remaining(waiting=self.waiting)


def remaining(inventory: Inventory, hold: ProfileHold) -> Remaining:
    """Return what is left for a hold of the inventory."""
    work = inventory.work()
    mine = [each for each in work if each.profile == hold.profile]
    running = sum(each.state == RUNNING for each in mine)
    listed = sum(each.state == SUBMITTED for each in mine)
    on_modal = sum(snapshot.on_modal.get(hold.profile, 0) for snapshot in inventory.living)
    held = sum(snapshot.held_by_profile.get(hold.profile, 0) for snapshot in inventory.living)
    following = [snapshot for snapshot in inventory.living if snapshot.paused is not None]
    unnoticed = [each for each in following if (each.paused or {}).get(hold.profile) != hold.id]
    return Remaining(
        running=running,
        # A snapshot lists the first calls only, but counts all.
        submitted=max(listed, on_modal - running),
        waiting=max(held, sum(each.state == WAITING for each in mine)),
        unknown=sum(not each.profile and each.state in (RUNNING, SUBMITTED) for each in work),
        unnoticed=tuple(map(_name, unnoticed)),
        too_old=tuple(_name(each) for each in inventory.living if each.paused is None),
        is_early=not inventory.living and inventory.read_at - hold.since < _GRACE,
    )


def wait_until_drained(site: Site, profile: str) -> Iterator[Remaining]:
    """Yield what is left every few seconds; the last one is done. Raises ResumedError, or as ``take_inventory``."""
    while True:
        inventory = take_inventory(site, profiles=False)
        hold = inventory.holds.by_profile.get(profile)
        if hold is None:
            raise ResumedError(f"Profile {profile!r} was resumed meanwhile, so its tasks start again")
        left = remaining(inventory, hold)
        yield left
        if left.done:
            return
        time.sleep(POLL)


def _name(snapshot: Snapshot) -> str:
    return f"{snapshot.host} (process {snapshot.pid}, modalflow {snapshot.version})"
