"""``modalflow profile``: pause, resume, drain and list the profiles of the deployed worker.

Owns texts and exit codes. ``modalflow.operations.profiles`` does the work.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import textwrap
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

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
from modalflow.cli.terminal.words import table
from modalflow.protocol.profile_holds import INTERVAL, LONGEST_REASON, ProfileHold

if TYPE_CHECKING:
    from modalflow.operations.profiles.draining import Remaining
    from modalflow.operations.profiles.listing import ProfileRow
    from modalflow.operations.profiles.pausing import Change
    from modalflow.operations.site import Site

_F = TypeVar("_F", bound=Callable[..., Any])

_name = click.argument("name", metavar="NAME")


def _check_length(_: click.Context, __: click.Parameter, reason: str) -> str:
    if len(reason) > LONGEST_REASON:
        raise click.BadParameter(f"it has {len(reason):,} characters; expected at most {LONGEST_REASON}")
    return reason


_reason = click.option(
    "--reason",
    default="",
    callback=_check_length,
    help=f"Why, for everyone whose tasks wait; at most {LONGEST_REASON} characters.",
)


@click.group()
def profile() -> None:
    """Pause, resume, drain and list profiles."""


def _site_options(command: _F) -> _F:
    return app_option(environment_option(json_option(command)))


@profile.command(cls=QuietCommand)
@_name
@_reason
@_site_options
def pause(name: str, reason: str, app: str, environment: str, as_json: bool) -> None:
    """Pause a profile: its tasks wait, and running ones go on.

    Every executor of the app follows within some seconds, also after a restart. Tasks without a container are taken off
    Modal again. Waiting tasks stay queued in Airflow, with the reason in their log.
    """
    with errors_in_a_line():
        _, change = _paused(name, reason, app, environment, drain=False)
        _show_change(change, as_json, f"Its tasks wait within {INTERVAL:g} s, and what runs goes on.")


@profile.command(cls=QuietCommand)
@_name
@_site_options
def resume(name: str, app: str, environment: str, as_json: bool) -> None:
    """Resume a profile: its waiting tasks start.

    Every executor of the app follows within some seconds.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.profiles import pausing
    from modalflow.operations.site import open_site, read_settings

    with errors_in_a_line():
        change = pausing.resume(open_site(read_settings(app, environment)), name)
        if as_json:
            answer(json.dumps(_wire(name, change.hold) | {"changed": change.changed}, indent=1))
        elif change.before is None:
            show(f"Profile {name} was not paused.")
        else:
            show(f"Profile {name} is resumed (it was {change.before.label}). Its tasks start within {INTERVAL:g} s.")


@profile.command(cls=QuietCommand)
@_name
@_reason
@click.option("--no-wait", is_flag=True, help="Pause only, without waiting for the end of running tasks.")
@_site_options
def drain(name: str, reason: str, no_wait: bool, app: str, environment: str, as_json: bool) -> None:
    """Pause a profile, and wait until nothing runs in it.

    Ctrl-C ends the wait, and the profile stays paused. Its idle containers end automatically.
    """
    with errors_in_a_line():
        site, change = _paused(name, reason, app, environment, drain=True)
        if no_wait:
            _show_change(change, as_json, f"Its tasks wait within {INTERVAL:g} s, and what runs goes on.")
            return
        _show_change(
            change, False, "Waiting for running tasks; Ctrl-C ends the wait, and the profile stays paused.", as_json
        )
        _wait(site, name, as_json)


@profile.command("list", cls=QuietCommand)
@_site_options
def list_profiles(app: str, environment: str, as_json: bool) -> None:
    """List the profiles, with their work and who paused them."""
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.inventory import take_inventory
    from modalflow.operations.profiles.listing import profile_rows
    from modalflow.operations.site import open_site, read_settings

    with errors_in_a_line():
        site = open_site(read_settings(app, environment))
        inventory = take_inventory(site)
        rows = profile_rows(inventory)
        if as_json:
            wire = {"app": site.names.app, "problem": inventory.holds.problem, "profiles": [*map(_row_wire, rows)]}
            answer(json.dumps(wire, indent=1))
        else:
            # Not for a pipe: there, each profile stays one line.
            show("\n".join(_page(rows, inventory.holds.warning, shutil.get_terminal_size((0, 0)).columns)))


def _paused(name: str, reason: str, app: str, environment: str, *, drain: bool) -> tuple[Site, Change]:
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.cancelling import user_here
    from modalflow.operations.profiles import pausing
    from modalflow.operations.site import open_site, read_settings

    site = open_site(read_settings(app, environment))
    return site, pausing.pause(site, name, user_here(), reason, drain=drain)


def _show_change(change: Change, as_json: bool, then: str, err: bool = False) -> None:
    hold = change.hold
    assert hold is not None, "a profile is paused now"
    if as_json:
        answer(json.dumps(_wire(hold.profile, hold) | {"changed": change.changed}, indent=1))
        return
    already = "" if change.changed else "already "
    reason = f" ({hold.reason})" if hold.reason else ""
    show(f"Profile {hold.profile} is {already}{hold.label}{reason}. {then}", err=err)
    show(f"To resume it, run `modalflow profile resume {hold.profile}`.", err=err)


def _wait(site: Site, name: str, as_json: bool) -> None:
    from modalflow.operations.profiles.draining import Remaining, wait_until_drained

    left, shown = Remaining(), ""
    for left in wait_until_drained(site, name):
        text = _progress(left)
        if text and text != shown:
            show(text, err=as_json)
            shown = text
    if as_json:
        answer(json.dumps({"profile": name, "state": "drained", "waiting": left.waiting}, indent=1))
        return
    show(f"Nothing runs in profile {name} any more. Waiting tasks: {left.waiting:,}. Its idle containers end soon.")


def _progress(left: Remaining) -> str:
    parts = [
        (left.running, "running"),
        (left.submitted, "on Modal without a container"),
        (left.unknown, "of an unknown profile"),
    ]
    texts = [f"{number:,} {what}" for number, what in parts if number]
    if left.unnoticed:
        texts.append(f"not noticed yet by {', '.join(left.unnoticed)}")
    if left.too_old:
        texts.append(f"too old to pause a profile, so upgrade and restart it: {', '.join(left.too_old)}")
    if left.is_early and not texts:
        texts.append("no executor reports; giving it time to notice")
    return "; ".join(texts)


def _wire(name: str, hold: ProfileHold | None) -> dict[str, Any]:
    if hold is None:
        return {"profile": name, "state": "active"}
    return {"profile": name, "state": hold.mode, "by": hold.by, "since": hold.since, "reason": hold.reason}


def _row_wire(row: ProfileRow) -> dict[str, Any]:
    figures = {f.name: getattr(row, f.name) for f in dataclasses.fields(row) if f.name != "hold"}
    return _wire(row.profile, row.hold) | figures


def _page(rows: Iterable[ProfileRow], warning: str, width: int = 0) -> Iterable[str]:
    figures = ("containers", "running", "submitted", "waiting")
    for line in table(
        ["profile", "state", *figures, "paused by"],
        [[row.profile, row.state, *(_figure(row, name) for name in figures), _who(row)] for row in rows],
        indent="",
    ):
        yield from _folded(line, width)
    if warning:
        yield click.style(warning, fg="yellow")


def _folded(line: str, width: int) -> list[str]:
    """Return the lines of a row that is too long for a terminal: it continues indented, at a word. 0: any width."""
    if not width or len(line) <= width:
        return [line]
    return textwrap.wrap(
        line, width, subsequent_indent="    ", drop_whitespace=True, break_on_hyphens=False, replace_whitespace=False
    )


def _figure(row: ProfileRow, name: str) -> str:
    return "?" if name == "containers" and row.problem else str(getattr(row, name))


def _who(row: ProfileRow) -> str:
    if row.hold is None:
        return row.problem
    reason = f": {row.hold.reason}" if row.hold.reason else ""
    return "; ".join(filter(None, (row.problem, f"{row.hold.who_and_when}{reason}")))
