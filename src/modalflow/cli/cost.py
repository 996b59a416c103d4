"""``modalflow cost``: the resources of tasks on Modal, and their estimated cost.

Owns texts. ``modalflow.operations.costs`` reads the records, ``modalflow.cost`` sums and prices them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import click

from modalflow.cli.spending.budgets_part import budgets_page, budgets_wire
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
from modalflow.cost.figures import duration, figure, memory
from modalflow.cost.rates import Rates, money
from modalflow.cost.sums import GROUPINGS, Sum, summed

if TYPE_CHECKING:
    from modalflow.operations.costs import Usage
    from modalflow.operations.site import Site

#: Seconds for which Modal keeps an idle container, unless its profile sets another value.
_SCALEDOWN = 60

_NOTES = (
    "They cover the larger of request and use, while a container starts, runs or waits for a task. Parallel tasks in a",
    f"container share them. Not included: a container's time after its last task ({_SCALEDOWN} s by default), images,",
    "Volumes, network, the credits of your plan. For Modal's own figures, run `modal billing report`.",
)


@click.command(cls=QuietCommand)
@dag_option
@click.option("--run", default="", help="Only this DAG run (its run id).")
@since_option("7d")
@click.option("--by", type=click.Choice(sorted(GROUPINGS)), default="run", help="Grouping of the sums. Default: run.")
@app_option
@environment_option
@json_option
def cost(dag: str, run: str, since: datetime, by: str, app: str, environment: str, as_json: bool) -> None:
    """Show the resources of tasks on Modal, and their estimated cost.

    The worker records the resources of each task on the logs Volume. This command sums them, by DAG run unless you set
    --by, and applies Modal's rates. The cost is an estimate: Modal bills containers, not tasks. If there are budgets,
    it shows what is spent and left of each.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.costs import current_rates, read_usage
    from modalflow.operations.site import open_site, read_settings
    from modalflow.operations.spending.balances import balances_of, period_began

    with errors_in_a_line():
        site, now = open_site(read_settings(app, environment)), time.time()
        limited = bool(site.settings.budgets)
        usage = read_usage(site, min(since, period_began(site, now)) if limited else since)
        rates, why_dated = current_rates(site)
        budgets = balances_of(site, usage.records, rates, now) if limited else []
    usage.records = [
        r for r in usage.records if dag in ("", r.dag_id) and run in ("", r.run_id) and r.ended_at >= since.timestamp()
    ]
    if as_json:
        wire = _wire(site, usage, since, by, rates, why_dated) | budgets_wire(budgets, site.settings.time_zone)
        answer(json.dumps(wire, indent=1))
    else:
        page = [*_page(site, usage, since, by, rates, why_dated), *budgets_page(budgets, site.settings.time_zone)]
        show("\n".join(page))


def _wire(site: Site, usage: Usage, since: datetime, by: str, rates: Rates, why_dated: str) -> dict[str, Any]:
    groups, whole = summed(usage.records, rates, by)
    names, _ = GROUPINGS[by]
    return {
        "app": site.names.app,
        "environment": site.control_plane.environment,
        "since": since.isoformat(),
        "estimate": True,
        "rates": {
            "live": rates.live,
            "source": rates.source,
            "why_not_live": why_dated or None,
            "dollars_per_hour": {key: str(value) for key, value in sorted(rates.hourly.items())},
        },
        "by": by,
        "groups": [dict(zip(names, key, strict=True)) | _numbers(each) for key, each in groups.items()],
        "total": _numbers(whole),
        "unreadable_lines": usage.unreadable,
    }


def _numbers(each: Sum) -> dict[str, Any]:
    return {
        "tasks": each.tasks,
        "function_calls": each.calls,
        "lost": each.lost,
        "queued_seconds": float(each.queued),
        "starting_seconds": float(each.starting),
        "running_seconds": float(each.running),
        "idle_seconds": float(each.idle),
        "container_seconds": float(each.occupied),
        "core_seconds": float(each.core_seconds),
        "core_seconds_used": float(each.cpu_used),
        "gib_seconds": float(each.gib_seconds),
        "gpu_seconds": {model: float(seconds) for model, seconds in sorted(each.gpu_seconds.items())},
        "memory_asked_mib": each.asked_mib,
        "memory_used_mib": round(each.used_mib, 1),
        "dollars": str(each.dollars),
        "without_a_rate": dict(each.unpriced),
    }


def _page(site: Site, usage: Usage, since: datetime, by: str, rates: Rates, why_dated: str) -> Iterable[str]:
    groups, whole = summed(usage.records, rates, by)
    environment = f" in environment {site.control_plane.environment}" if site.control_plane.environment else ""
    yield click.style(f"{site.names.app}{environment}: work that ended since {since:%Y-%m-%d %H:%M} UTC", bold=True)
    if not groups:
        yield "  No records: no matching task ended in this time, or the worker is too old to write records."
        return
    header = [*GROUPINGS[by][0], "tasks", "queued", "starting", "running", "idle", "core-s", "GiB-s"]
    gpus = sorted(whole.gpu_seconds)
    header += [f"{model}-s" for model in gpus]
    header += ["memory asked/used", "dollars"]
    rows = [[*key, *_cells(each, gpus)] for key, each in groups.items()]
    if len(rows) > 1:
        rows.append(["total", *[""] * (len(GROUPINGS[by][0]) - 1), *_cells(whole, gpus)])
    yield from table(header, rows)
    yield ""
    yield from _notes(whole, usage, rates, why_dated)


def _cells(each: Sum, gpus: list[str]) -> list[str]:
    times = (each.queued, each.starting, each.running, each.idle)
    used = memory(each.used_mib) if each.used_mib else "?"
    asked = memory(each.asked_mib) if each.asked_mib else "?"
    return [
        f"{each.tasks:,}",
        *(_time(float(seconds)) for seconds in times),
        figure(float(each.core_seconds)),
        figure(float(each.gib_seconds)),
        *(figure(float(each.gpu_seconds.get(model, Decimal(0)))) for model in gpus),
        f"{asked} / {used}",
        money(each.dollars) + (" + ?" if each.unpriced else ""),
    ]


def _time(seconds: float) -> str:
    return f"{figure(seconds)} s" if seconds < 60 else duration(seconds)


def _notes(whole: Sum, usage: Usage, rates: Rates, why_dated: str) -> Iterable[str]:
    yield f"The dollars are an estimate, from {rates.source}."
    if why_dated:
        yield f"({why_dated}.)"
    yield from _NOTES
    for what, number in sorted(whole.unpriced.items()):
        yield click.style(
            f"?  {counted(number, 'function call')} without a rate, not in the dollars: {what}", fg="yellow"
        )
    if whole.lost:
        lost = counted(whole.lost, "function call")
        yield click.style(
            f"!  {lost} lost with a container: the figures include the time until the loss was noticed.", fg="yellow"
        )
    if usage.unreadable:
        yield click.style(f"!  {counted(usage.unreadable, 'line')} of the records cannot be read.", fg="yellow")
