"""``modalflow status``: running and waiting work on Modal.

Owns texts and exit codes. ``modalflow.operations.inventory`` collects the facts.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import click

from modalflow.cli.terminal.common import (
    answer,
    app_option,
    environment_option,
    errors_in_a_line,
    json_option,
    show,
)
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.cli.terminal.words import counted, table
from modalflow.cost.figures import duration
from modalflow.errors import ModalflowError
from modalflow.support.described import words_of

if TYPE_CHECKING:
    from modalflow.operations.inventory import Inventory, Work
    from modalflow.operations.site import Site
    from modalflow.protocol.snapshot import Snapshot

#: The meaning of the states, for a new user.
_MEANING = {
    "running": "in a container",
    "submitted": "on Modal, waiting for a container",
    "waiting": "on this host, not accepted by Modal yet",
}


@click.command(cls=QuietCommand)
@app_option
@environment_option
@click.option("--limit", type=click.IntRange(min=0), default=40, show_default=True, help="Number of rows of work.")
@click.option("--watch", is_flag=True, help="Refresh the page until Ctrl-C.")
@click.option(
    "--interval", type=click.FloatRange(min=0.5), default=3.0, show_default=True, help="Seconds between refreshes."
)
@json_option
def status(app: str, environment: str, limit: int, watch: bool, interval: float, as_json: bool) -> None:
    """Show the running and waiting tasks on Modal.

    Running work comes from the ledger and is current. Waiting work comes from the executors, which report every
    `[modal_executor] status_interval` seconds.
    """
    # Imports Modal, and Airflow's configuration.
    from modal import exception

    from modalflow.operations.inventory import take_inventory
    from modalflow.operations.site import open_site, read_settings

    with errors_in_a_line():
        site = open_site(read_settings(app, environment))
        while True:
            try:
                _show(take_inventory(site), site, limit, watch, as_json)
            except (exception.Error, ModalflowError, TimeoutError) as error:
                if not watch:
                    raise
                show(f"Cannot read the status, trying again: {words_of(error)}", err=True)
            if not watch:
                return
            time.sleep(interval)


def _show(inventory: Inventory, site: Site, limit: int, watch: bool, as_json: bool) -> None:
    if as_json:
        answer(json.dumps(_wire(inventory, site), indent=None if watch else 1))
        return
    page = "\n".join(_page(inventory, site, limit))
    if watch:
        click.clear()
    show(page)


def _wire(inventory: Inventory, site: Site) -> dict[str, Any]:
    executors = [
        {f.name: getattr(snapshot, f.name) for f in dataclasses.fields(snapshot) if f.name != "calls"}
        | {"in_flight": snapshot.in_flight, "silent": snapshot.is_silent(inventory.read_at)}
        for snapshot in inventory.executors
    ]
    return {
        "app": site.names.app,
        "environment": site.control_plane.environment,
        "read_at": inventory.read_at,
        "worker": json.loads(inventory.deployment.to_json()) if inventory.deployment else None,
        "executors": executors,
        "relays": [
            dataclasses.asdict(relay) | {"silent": relay.is_silent(inventory.read_at)} for relay in inventory.relays
        ],
        "profiles": [dataclasses.asdict(profile) for profile in inventory.profiles],
        "totals": {profile: dict(states) for profile, states in inventory.totals().items()},
        "work": [
            dataclasses.asdict(work) | {"task": work.task._asdict() if work.task else None} for work in inventory.work()
        ],
        "unlisted": inventory.unlisted,
    }


def _page(inventory: Inventory, site: Site, limit: int) -> Iterable[str]:
    from modalflow.control_plane import server_url

    version = f", worker modalflow {inventory.deployment.version}" if inventory.deployment else ""
    environment = f" in environment {site.control_plane.environment}" if site.control_plane.environment else ""
    clock = time.strftime("%H:%M:%S", time.localtime(inventory.read_at))
    yield click.style(f"{site.names.app}{environment} on {server_url()}{version}, at {clock}", bold=True)
    yield ""
    yield from _executors(inventory)
    yield from _relays(inventory)
    yield from _profiles(inventory)
    yield from _work(inventory, limit)


def _executors(inventory: Inventory) -> Iterable[str]:
    yield "Executors"
    if not inventory.executors:
        yield "  No executor has reported. Check that a scheduler with ModalExecutor runs, with the same app."
    for snapshot in inventory.living:
        yield from _executor(snapshot, inventory.read_at)
    for snapshot in inventory.silent:
        ago = duration(inventory.read_at - snapshot.published_at)
        gone = f"  {_name(snapshot)} last reported {ago} ago: it was killed, or cannot reach Modal"
        yield click.style(gone, fg="bright_black")
    yield ""


def _name(snapshot: Snapshot) -> str:
    parts = [f"{snapshot.host} (process {snapshot.pid}"]
    if snapshot.job_id:
        parts.append(f", scheduler job {snapshot.job_id}")
    if snapshot.team:
        parts.append(f", team {snapshot.team}")
    return "".join(parts) + ")"


#: A count's name → its words. A task that failed in Airflow has ended normally for its executor.
_WORDS = {
    "success": "ended normally",
    "over_budget.warn": "budgets used up (warn)",
    "over_budget.hold": "budgets used up (hold)",
    "over_budget.refuse": "budgets used up (refuse)",
    "refused_by_budget": "refused by a budget",
}


def _words(what: str) -> str:
    name, _, cause = what.partition(".")
    return f"run again ({cause})" if name == "run_again" else _WORDS.get(what, what)


def _executor(snapshot: Snapshot, now: float) -> Iterable[str]:
    counts = ", ".join(f"{number:,} {_words(what)}" for what, number in snapshot.counts.items() if what != "started")
    up = duration(now - snapshot.started_at)
    yield f"  {_name(snapshot)}, up {up}: {snapshot.in_flight:,} in flight{'; so far ' + counts if counts else ''}"
    if snapshot.obstacle:
        yield click.style(f"    Modal accepts no work: {snapshot.obstacle}", fg="red")
    for text in snapshot.budgets:
        yield click.style(f"    budget, {text}", fg="yellow")
    if by_budgets := snapshot.held - sum(snapshot.held_by_profile.values()):
        held = counted(by_budgets, "task")
        yield click.style(f"    {held} held by budgets: `modalflow cost` shows the budgets", fg="yellow")
    for profile, number in snapshot.held_by_profile.items():
        yield click.style(f"    {counted(number, 'task')} held by the pause of profile {profile}", fg="yellow")
    if snapshot.trouble:
        ago = duration(now - snapshot.trouble_at)
        yield click.style(f"    last warning, {ago} ago: {snapshot.trouble}", fg="yellow")


def _relays(inventory: Inventory) -> Iterable[str]:
    if not inventory.relays:
        return
    yield "Relays"
    for relay in inventory.relays:
        ago = duration(inventory.read_at - relay.published_at)
        if relay.is_silent(inventory.read_at):
            gone = f"  {relay.name} last reported {ago} ago: it was killed, or cannot reach Modal"
            yield click.style(gone, fg="bright_black")
            continue
        counts = ", ".join(f"{number:,} {what.replace('_', ' ')}" for what, number in relay.counts.items() if number)
        times = f"{relay.queue_seconds * 1000:.0f} ms on the way, {relay.api_seconds * 1000:.0f} ms at the API server"
        yield f"  {relay.name} to {relay.url}, {ago} ago: {counts or 'no requests'}; on average {times}"
    yield ""


def _profiles(inventory: Inventory) -> Iterable[str]:
    totals = inventory.totals()
    rows = []
    for profile in inventory.profiles:
        states: Mapping[str, int] = totals.get(profile.name, {})
        if profile.problem:
            rows.append([profile.name, "?", "?", "", "", profile.problem])
            continue
        rows.append(
            [profile.name, str(profile.containers), str(profile.backlog)]
            + [str(states.get(state, 0)) for state in _MEANING]
        )
    yield "Profiles"
    yield from table(["profile", "containers", "backlog", *_MEANING], rows)
    for hold in inventory.holds.by_profile.values():
        yield click.style(f"  {hold.sentence}", fg="yellow")
    if inventory.holds.warning:
        yield click.style(f"  {inventory.holds.warning}", fg="yellow")
    yield ""


def _work(inventory: Inventory, limit: int) -> Iterable[str]:
    work = inventory.work()
    if not work:
        yield "Work"
        yield "  no running or waiting work"
        return
    states = {state: sum(each.state == state for each in work) for state in _MEANING}
    summary = ", ".join(f"{number} {state} ({_MEANING[state]})" for state, number in states.items() if number)
    yield f"Work: {summary}"
    shown = work[:limit]
    rows = [_row(each, inventory.read_at) for each in shown]
    if rows:
        yield from table(["state", "for", "profile", "task", "where"], rows)
    if hidden := len(work) - len(shown) + inventory.unlisted:
        yield f"  … and {hidden:,} more (use --limit for more rows, --json for all listed work)"
    orphans = sum(not each.executor for each in work)
    if orphans:
        yield click.style(
            f"  {counted(orphans, 'task')} marked * have no living executor: the next scheduler adopts them",
            fg="yellow",
        )


def _row(work: Work, now: float) -> list[str]:
    where = " ".join(part for part in (work.container_id, work.function_call_id, work.reason) if part)
    if work.submissions > 1:
        where += f" (submitted {work.submissions} times)"
    mark = "" if work.executor else " *"
    return [work.state, duration(now - work.since), work.profile or "-", work.label or work.work_id, where + mark]
