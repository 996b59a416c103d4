"""``modalflow local fault``: inject faults into a running control plane.

Owns texts and exit codes. ``modalflow.emulator.faults`` owns the faults.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from modalflow.emulator import daemon as daemons
from modalflow.emulator.faults.fault_control import Fault, FaultControl, FaultError

_name = click.option("--name", default=daemons.DEFAULT_NAME, show_default=True, help="Name of the control plane.")
_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group()
def fault() -> None:
    """Inject faults into a running control plane, reproducibly.

    A fault is TARGET:KIND[=VALUE][,OPTION=VALUE...], e.g. FunctionMap:unavailable,p=0.1 or
    container/etl/load:preempt,count=1. `modalflow local fault kinds` lists all kinds.
    """


@fault.command()
@_name
@_json
@click.argument("specs", nargs=-1, required=True, metavar="SPEC...")
def add(specs: tuple[str, ...], name: str, as_json: bool) -> None:
    """Add faults. They apply at once."""
    control = _control(name)
    _print([_asked(control.add, spec) for spec in specs], as_json)


@fault.command("list")
@_name
@_json
def list_(name: str, as_json: bool) -> None:
    """List the faults and their counts. With --json, also their last injections."""
    _print(_asked(_control(name).list), as_json)


@fault.command()
@_name
@_json
@click.argument("ids", nargs=-1, metavar="[ID]...")
def clear(ids: tuple[str, ...], name: str, as_json: bool) -> None:
    """Remove the faults with these ids, or all faults."""
    removed = _asked(_control(name).clear, ids or None)
    if as_json:
        _print(removed, as_json)
    else:
        click.echo(f"{len(removed)} removed.")


@fault.command()
@_name
@click.argument("spec")
def now(spec: str, name: str) -> None:
    """Inject one fault now: kill, freeze or preempt containers, or stop the world.

    E.g. container/etl/load:preempt, container/ta-123:freeze=5s, world:stop=2s.
    """
    if ":" not in spec:
        raise click.UsageError(f"{spec!r} is not a fault; expected e.g. container/etl/load:preempt or world:stop=2s")
    for container_id in _asked(_control(name).now, spec):
        click.echo(container_id)


@fault.command()
@_name
@_json
def containers(name: str, as_json: bool) -> None:
    """List the live containers and their inputs."""
    found = _asked(_control(name).containers)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in found]))
        return
    for each in found:
        click.echo(f"{each.container_id}  {each.state:8}  {each.app}/{each.function}  {' '.join(each.inputs)}".rstrip())


@fault.command()
def kinds() -> None:
    """List the kinds of faults."""
    from modalflow.emulator.faults.tables import text

    click.echo(text())


def _control(name: str) -> FaultControl:
    try:
        running, _ = daemons.look_up(name)
    except daemons.DaemonError as error:
        raise click.ClickException(str(error)) from error
    if running is None:
        raise click.ClickException(f"No local control plane named {name!r} runs. Start one: modalflow local start")
    return running.address.faults


def _asked(what: Any, *arguments: Any) -> Any:
    try:
        return what(*arguments)
    except FaultError as error:
        raise click.ClickException(str(error)) from error


def _print(faults: list[Fault], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(each) for each in faults]))
        return
    for each in faults:
        click.echo(f"{each.id:4}  {each.happened:6} of {each.seen:<6}  {each.spec}")
