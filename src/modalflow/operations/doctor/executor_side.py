"""What executors tell of themselves, as far as it can be wrong: what is in their way, and what waits for too long."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from modalflow import __version__
from modalflow.operations.doctor.airflow_side import queued_timeout
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, warn
from modalflow.operations.doctor.installation_side import of_executor
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.inventory import RUNNING, Inventory, take_inventory
from modalflow.operations.site import Site
from modalflow.protocol.snapshot import Snapshot
from modalflow.support.described import describe
from modalflow.support.installation import PAGE

#: The part of [scheduler] task_queued_timeout after which waiting for a container is worth a word.
_LONG = 0.5


def examine(site: Site, conf: Any | None, env: Mapping[str, str]) -> Iterator[Finding]:
    """Findings about every executor that lives, and about the longest wait."""
    try:
        inventory = take_inventory(site, profiles=False)
    except FAILURES as error:
        yield fail("executors", f"they could not be asked: {describe(error)}", "Try again.")
        return
    if not inventory.living:
        yield skip(
            "executors",
            "none has reported lately: start the scheduler, then run the doctor again. If it runs, its environment may "
            f"have another program named modalflow; see {PAGE}",
        )
    for snapshot in inventory.living:
        yield _executor(snapshot)
        if (finding := of_executor(snapshot)) is not None:
            yield finding
        if conf is not None:
            yield from _settings(snapshot, env)
    yield from _longest_wait(inventory, queued_timeout(conf))


def _executor(snapshot: Snapshot) -> Finding:
    name, who = "executor that runs", f"{snapshot.host} (process {snapshot.pid})"
    if snapshot.obstacle:
        said = f"{who}: Modal takes nothing at present: {snapshot.obstacle}"
        return warn(name, said, "It goes on by itself; its log tells since when. For credentials see above.")
    if snapshot.version != __version__:
        said = f"{who} is modalflow {snapshot.version}, here it is {__version__}"
        return warn(name, said, "Restart the scheduler after an upgrade, and run the doctor in its environment.")
    return ok(name, f"{who}, {snapshot.in_flight:,} in flight")


def _settings(snapshot: Snapshot, env: Mapping[str, str]) -> Iterator[Finding]:
    """Whether an executor has the settings of this machine, on which every other check rests."""
    from modalflow.airflow_compat.tokens import SIGNING_SETTINGS, differences
    from modalflow.executor.worker_env import comparable_settings

    name, who = "executor's settings", f"{snapshot.host} (process {snapshot.pid})"
    theirs: Any = snapshot.settings
    if not isinstance(theirs, dict) or not theirs:
        yield skip(name, f"{who} is of an older modalflow and does not publish what could be compared")
        return
    different = differences(theirs, comparable_settings(env))
    signing = [setting for setting in different if setting in SIGNING_SETTINGS]
    if signing:
        yield fail(
            name,
            f"{who} signs the tokens of its tasks with other settings than this machine: {', '.join(signing)} differ",
            "One of the two differs from the API server, which refuses its tokens. Give all three the same values, in "
            "their environment variables or airflow.cfg, and restart what you change.",
        )
    elif different:
        yield warn(
            name,
            f"{who} and this machine differ in {', '.join(different)}: the other checks hold for this machine's",
            "Run the doctor with the scheduler's environment and airflow.cfg.",
        )
    else:
        yield ok(name, f"{who} has the same as this machine, as far as tokens, API and DAG bundles go")


def _longest_wait(inventory: Inventory, limit: float) -> Iterator[Finding]:
    waiting = [work for work in inventory.work() if work.state != RUNNING]
    if not waiting:
        return
    first = min(waiting, key=lambda work: work.since)
    seconds = time.time() - first.since
    if seconds > limit * _LONG:
        yield warn(
            "longest wait",
            f"{first.label} waits for {seconds:.0f} s; Airflow takes it back after {limit:g} s",
            "Raise [scheduler] task_queued_timeout if waiting is expected, or what limits containers: the profile's "
            "max_containers, the workspace's limits, a GPU that is scarce.",
        )
