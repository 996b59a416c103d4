"""``modalflow advise``: what tasks could save, what they nearly ran out of, and the line to change. Owns texts."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
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
from modalflow.cli.terminal.since import dag_option, since_option
from modalflow.cli.terminal.words import counted, table
from modalflow.config.values import LONGEST_TIMEOUT
from modalflow.cost.advice import Advice, ColdAdvice, IdleAdvice, TaskAdvice
from modalflow.cost.figures import figure, memory, seconds
from modalflow.cost.rates import Rates, money
from modalflow.cost.usage import Reserved
from modalflow.names import DEFAULT_PROFILE

if TYPE_CHECKING:
    from modalflow.operations.site import Site

_SHARED = "(all tasks)"
_MOST_TASKS = 5


@click.command(cls=QuietCommand)
@dag_option
@since_option("14d")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True, help="Rows of each table.")
@app_option
@environment_option
@json_option
def advise(dag: str, since: datetime, limit: int, app: str, environment: str, as_json: bool) -> None:
    """Show what tasks on Modal could save, and which of them nearly ran out of memory or time.

    The command compares the resources that tasks ask for with those they used, and prints the lines to change. All
    dollars are estimates for a month of 30 days, at the rate of runs since WHEN.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.site import open_site, read_settings
    from modalflow.operations.spending.advising import read_advice

    with errors_in_a_line():
        site = open_site(read_settings(app, environment))
        advice, rates = read_advice(site, since, dag)
    if as_json:
        answer(json.dumps(_wire(site, advice, since, rates), indent=1))
    else:
        show("\n".join(_page(site, advice, since, rates, limit)))


def _page(site: Site, advice: Advice, since: datetime, rates: Rates, limit: int) -> Iterable[str]:
    environment = f" in environment {site.control_plane.environment}" if site.control_plane.environment else ""
    yield click.style(f"{site.names.app}{environment}: advice from work since {since:%Y-%m-%d %H:%M} UTC", bold=True)
    if not advice.days:
        yield "  No records: no matching task ended in this time, or the worker is too old to write records."
        return
    days = f"{advice.days:.1f} days of records" if advice.days >= 1 else "Less than a day of records, counted as a day"
    yield (
        f"{days}; at this rate, a month of 30 days costs about {money(advice.dollars)} "
        f"with {rates.source} (an estimate)."
    )
    parts = [_too_large(advice, limit), _at_risk(advice, limit), _idle(advice, limit), _cold(advice, limit)]
    shown = [list(part) for part in parts]
    for part in shown:
        yield from part
    if not any(shown):
        yield ""
        yield "No advice: tasks ask for what they use, and containers are busy."


def _too_large(advice: Advice, limit: int) -> Iterable[str]:
    if not advice.tasks:
        return
    yield ""
    yield click.style("Ask for less", bold=True)
    header = ["saves a month", "dag", "task", "profile", "runs a month", "asks for", "95% of runs use", "needs"]
    yield from table(header, [_row(each) for each in advice.tasks[:limit]])
    yield from _changes(advice.tasks, limit)
    yield from _more(len(advice.tasks), limit)


def _row(each: TaskAdvice) -> list[str]:
    return [
        money(each.saves),
        each.dag_id or _SHARED,
        each.task_id or _SHARED,
        each.profile,
        figure(each.runs_a_month),
        _size(each.asks.cpu, each.asks.memory_mib),
        _size(each.used_cores, each.used_mib),
        _size(each.needs_cores, each.needs_mib),
    ]


def _size(cores: float, mib: float) -> str:
    parts = [f"{cores:.3g} core{'' if cores == 1 else 's'}"] if cores else []
    return ", ".join([*parts, memory(mib)] if mib else parts) or "?"


def _changes(tasks: Iterable[TaskAdvice], limit: int) -> Iterable[str]:
    yield "  Change:"
    for each in list(tasks)[:limit]:
        yield f"    {_name(each)}: {change(each)}"


def _name(each: TaskAdvice) -> str:
    return f"profile {each.profile}" if each.is_of_profile else f"{each.dag_id}.{each.task_id}"


def change(each: TaskAdvice) -> str:
    """Return the line that makes a task, or a profile, ask for what it needs."""
    options: dict[str, str] = {}
    if each.saves and each.needs_cores and each.needs_cores != each.asks.cpu:
        options["cpu"] = f"{each.needs_cores:g}"
    if memory_text := _memory_change(each):
        options["memory"] = memory_text
    if each.timeout:
        options["timeout"] = f"{min(each.timeout, LONGEST_TIMEOUT):.0f}"
    listed = ", ".join(f"{name}={value}" for name, value in options.items())
    if each.is_of_profile:
        return f'Profile("{each.profile}", {listed}, …)' + _deploy_options(each.profile, options)
    return f"executor_config=modalflow.modal_config({listed})"


def _memory_change(each: TaskAdvice) -> str:
    """Return the memory to ask for, as in Python: a size, or a request and a limit if there is a limit."""
    asks, needs = each.asks, each.needs_mib or each.asks.memory_mib
    is_smaller = bool(each.saves) and needs != asks.memory_mib
    if not each.limit_mib and not is_smaller:
        return ""
    if not asks.limit_mib:
        return _text(max(needs, each.limit_mib))
    request = needs if is_smaller else asks.memory_mib
    return f"({_text(request)}, {_text(max(request, each.limit_mib or asks.limit_mib))})"


def _deploy_options(profile: str, options: dict[str, str]) -> str:
    """Return the command for a worker without a file, which has the profile `default` alone."""
    if profile != DEFAULT_PROFILE or any(value.startswith("(") for value in options.values()):
        return ""
    flags = " ".join(f"--{name} {value.strip(chr(34))}" for name, value in options.items())
    return f", or without a file: modalflow deploy {flags}"


def _text(mib: float) -> str:
    return f'"{mib / 1024:g}GiB"' if mib >= 1024 else f'"{mib:g}MiB"'


def _at_risk(advice: Advice, limit: int) -> Iterable[str]:
    if not advice.at_risk:
        return
    yield ""
    yield click.style("Ask for more: ran out of memory or time, or nearly", bold=True)
    rows = [
        [
            money(each.prevents),
            each.dag_id or _SHARED,
            each.task_id or _SHARED,
            each.profile,
            figure(each.runs_a_month),
            "; ".join(each.risks),
        ]
        for each in advice.at_risk[:limit]
    ]
    yield from table(["lost a month", "dag", "task", "profile", "runs a month", "what happened"], rows)
    yield from _changes(advice.at_risk, limit)
    yield from _more(len(advice.at_risk), limit)


def _idle(advice: Advice, limit: int) -> Iterable[str]:
    if not advice.idle:
        return
    yield ""
    yield click.style("Idle containers", bold=True)
    rows = [
        [money(each.dollars), each.profile, f"{each.idle_share:.0%}", figure(each.containers_a_month)]
        for each in advice.idle[:limit]
    ]
    yield from table(["costs a month", "profile", "idle time", "containers a month"], rows)
    yield "  Change:"
    for each in advice.idle[:limit]:
        yield f"    profile {each.profile}: {_idle_change(each)}"


def _idle_change(each: IdleAdvice) -> str:
    return (
        f'Profile("{each.profile}", scaledown_window=…, …): fewer seconds than now (60 by default), and fewer '
        "`min_containers` and `buffer_containers` if you set them. Tasks then wait for a start more often"
    )


def _cold(advice: Advice, limit: int) -> Iterable[str]:
    if not advice.cold:
        return
    yield ""
    yield click.style("Cold container pools", bold=True)
    rows = [
        [
            each.profile,
            _options(each.asks),
            figure(each.calls_a_month),
            f"{each.calls_a_container:.1f}",
            seconds(each.starting),
            _tasks(each),
        ]
        for each in advice.cold[:limit]
    ]
    header = ["profile", "options", "tasks a month", "tasks a container", "start", "tasks"]
    yield from table(header, rows)
    yield "  Change: let these tasks ask for a set of options that others use, so that they find warm containers:"
    for each in advice.cold[:limit]:
        yield f"    {_tasks(each)}: {_same_options(each.larger)}"


def _options(asks: Reserved) -> str:
    parts = [_size(asks.cpu, asks.memory_mib), asks.gpu]
    if asks.timeout:
        parts.append(f"timeout {asks.timeout:.0f} s")
    return ", ".join(part for part in parts if part)


def _tasks(each: ColdAdvice) -> str:
    more = len(each.tasks) - _MOST_TASKS
    return ", ".join(each.tasks[:_MOST_TASKS]) + (f" and {more} more" if more > 0 else "")


def _same_options(larger: Reserved) -> str:
    gpu = f', gpu="{larger.gpu}"' if larger.gpu else ""
    timeout = f", timeout={larger.timeout:.0f}" if larger.timeout else ""
    return f"modal_config(cpu={larger.cpu:g}, memory={_text(larger.memory_mib)}{gpu}{timeout})"


def _more(number: int, limit: int) -> Iterable[str]:
    if number > limit:
        yield f"  … and {counted(number - limit, 'row')} more (use --limit for more rows, --json for all)"


def _wire(site: Site, advice: Advice, since: datetime, rates: Rates) -> dict[str, Any]:
    return {
        "app": site.names.app,
        "environment": site.control_plane.environment,
        "since": since.isoformat(),
        "days": advice.days,
        "estimate": True,
        "rates": rates.source,
        "dollars_a_month": str(advice.dollars),
        "ask_for_less": [_task_wire(each) for each in advice.tasks],
        "ask_for_more": [_task_wire(each) for each in advice.at_risk],
        "idle_containers": [
            {
                "profile": each.profile,
                "idle_share": each.idle_share,
                "dollars_a_month": str(each.dollars),
                "containers_a_month": each.containers_a_month,
                "change": _idle_change(each),
            }
            for each in advice.idle
        ],
        "cold_pools": [
            {
                "profile": each.profile,
                "asks": _reserved_wire(each.asks),
                "calls_a_month": each.calls_a_month,
                "calls_a_container": each.calls_a_container,
                "start_seconds": each.starting,
                "tasks": list(each.tasks),
                "change": _same_options(each.larger),
            }
            for each in advice.cold
        ],
    }


def _task_wire(each: TaskAdvice) -> dict[str, Any]:
    return {
        "dag": each.dag_id or None,
        "task": each.task_id or None,
        "profile": each.profile,
        "runs_a_month": each.runs_a_month,
        "asks": _reserved_wire(each.asks),
        "used": {"cpu": each.used_cores or None, "memory_mib": each.used_mib or None},
        "needs": {"cpu": each.needs_cores or None, "memory_mib": each.needs_mib or None},
        "dollars_a_month": str(each.dollars),
        "saves_a_month": str(each.saves),
        "risks": list(each.risks),
        "prevents_a_month": str(each.prevents),
        "change": change(each),
    }


def _reserved_wire(asks: Reserved) -> dict[str, Any]:
    return {
        "cpu": asks.cpu,
        "memory_mib": asks.memory_mib,
        "memory_limit_mib": asks.limit_mib or None,
        "gpu": asks.gpu or None,
        "timeout": asks.timeout or None,
    }
