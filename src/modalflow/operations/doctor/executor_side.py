"""Checks of the executors' reports: their obstacles, and long waits."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from modalflow import __version__
from modalflow.airflow_home.comparison import changes
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import snapshot_of
from modalflow.operations.doctor.airflow_side import queued_timeout
from modalflow.operations.doctor.findings import Finding, fail, ok, skip, warn, with_rows
from modalflow.operations.doctor.installation_side import of_executor
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.host.host_configuration import home_store
from modalflow.operations.inventory import RUNNING, Inventory, take_inventory
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.protocol.snapshot import Snapshot
from modalflow.support.described import describe
from modalflow.support.installation import PAGE

#: Part of [scheduler] task_queued_timeout. A longer wait for a container causes a warning.
_LONG = 0.5
#: The most differences named on one line.
_NAMED = 8


def examine(
    site: Site, conf: Any | None, env: Mapping[str, str], home_of: Callable[[str], HomeSnapshot | None]
) -> Iterator[Finding]:
    """Yield findings about every living executor, and about the longest wait.

    ``home_of`` returns this machine's Airflow home for an executor's team; None if it cannot be had.
    """
    try:
        inventory = take_inventory(site, profiles=False)
    except FAILURES as error:
        yield fail("executors", f"cannot read their reports: {describe(error)}", "Try again.")
        return
    if not inventory.living:
        yield skip(
            "executors",
            "no executor has reported recently: start the scheduler, then run the doctor again. If it runs, it has "
            "another executor, because it started without these options. Its log names its executor. Or its "
            f"environment has another program named modalflow; see {PAGE}",
        )
    for snapshot in inventory.living:
        yield _executor(snapshot)
        if (finding := of_executor(snapshot)) is not None:
            yield finding
        if conf is not None:
            yield from _settings(snapshot, env)
        if (home := home_of(snapshot.team)) is not None:
            yield _options(snapshot, home, site)
    yield from _longest_wait(inventory, queued_timeout(conf))


def _executor(snapshot: Snapshot) -> Finding:
    name, who = "executor that runs", f"{snapshot.host} (process {snapshot.pid})"
    if snapshot.obstacle:
        detail = f"{who}: Modal accepts no work: {snapshot.obstacle}"
        return warn(
            name,
            detail,
            "It continues automatically; its log has the start of the problem. For credentials, see above.",
        )
    if snapshot.version != __version__:
        detail = f"{who} is modalflow {snapshot.version}, here it is {__version__}"
        return warn(name, detail, "Restart the scheduler after an upgrade, and run the doctor in its environment.")
    return ok(name, f"{who}, {snapshot.in_flight:,} in flight")


def _settings(snapshot: Snapshot, env: Mapping[str, str]) -> Iterator[Finding]:
    """Compare an executor's settings with this machine's, because all other checks use this machine's."""
    from modalflow.airflow_compat.tokens import SIGNING_SETTINGS, differences
    from modalflow.executor.worker_env import comparable_settings

    name, who = "executor's settings", f"{snapshot.host} (process {snapshot.pid})"
    theirs: Any = snapshot.settings
    if not isinstance(theirs, dict) or not theirs:
        yield skip(name, f"{who} has an older modalflow and publishes no settings")
        return
    different = differences(theirs, comparable_settings(env))
    signing = [setting for setting in different if setting in SIGNING_SETTINGS]
    if signing:
        yield fail(
            name,
            f"{who} signs the tokens of its tasks with other settings than this machine: {', '.join(signing)} differ",
            "One of the two differs from the API server, so the API server refuses its tokens. Set the same values for "
            "all three, in environment variables or airflow.cfg, and restart the changed parts.",
        )
    elif different:
        yield warn(
            name,
            f"{who} and this machine differ in {', '.join(different)}: the other checks apply to this machine",
            "Run the doctor with the scheduler's environment and airflow.cfg.",
        )
    else:
        yield ok(name, f"{who} and this machine have the same settings for tokens, API and DAG bundles")


def _options(snapshot: Snapshot, home: HomeSnapshot, site: Site) -> Finding:
    """Compare the Airflow home that an executor's tasks get with the one of this machine's configuration."""
    name, who = "executor's options", f"{snapshot.host} (process {snapshot.pid})"
    if not snapshot.home:
        return skip(name, f"{who} publishes none of its Airflow's options, e.g. as an older modalflow")
    if snapshot.home == home.id:
        return ok(name, f"tasks of {who} have the options and files of this machine")
    try:
        theirs = within(PATIENCE, lambda: snapshot_of(home_store(site).files, snapshot.home))
    except FAILURES as error:
        return warn(name, f"what {who} published cannot be read: {describe(error)}", "Restart the scheduler.")
    different = changes(home, theirs) or ["the key of its secret settings"]
    more = f" and {len(different) - _NAMED} more" if len(different) > _NAMED else ""
    return with_rows(
        warn(
            name,
            f"{who} was started with another configuration than this machine has now: "
            f"{', '.join(different[:_NAMED])}{more}",
            "If you changed it since, restart the scheduler: its tasks have what it read at its start. Otherwise run "
            "the doctor in the scheduler's environment.",
        ),
        [{"different": what} for what in different],
    )


def _longest_wait(inventory: Inventory, limit: float) -> Iterator[Finding]:
    # Airflow does not revoke work with a reason: a budget or a paused profile holds it.
    waiting = [work for work in inventory.work() if work.state != RUNNING and not work.reason]
    if not waiting:
        return
    first = min(waiting, key=lambda work: work.since)
    seconds = time.time() - first.since
    if seconds > limit * _LONG:
        yield warn(
            "longest wait",
            f"{first.label} has waited for {seconds:.0f} s; Airflow revokes it after {limit:g} s",
            "To allow long waits, raise [scheduler] task_queued_timeout. Otherwise check the limits of containers: "
            "the profile's max_containers, the workspace's limits, scarce GPUs.",
        )
