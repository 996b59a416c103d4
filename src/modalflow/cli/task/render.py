"""``modalflow render``: show what a task would ask of Modal.

Owns texts and exit codes. ``modalflow.operations.single_task.rendering`` owns the answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from modalflow.cli.terminal.common import answer, app_option, environment_option, errors_in_a_line, json_option, show
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.cli.terminal.words import table

if TYPE_CHECKING:
    from modalflow.operations.single_task.rendering import Rendered

#: In place of a variable's value.
_MASKED = "***"


@click.command(cls=QuietCommand)
@click.argument("dag")
@click.argument("task")
@click.option("--run", default="", help="Run of the task instance. Default: the next run, of the newest DAG version.")
@click.option("--map-index", type=click.IntRange(min=0), help="Index of an instance of a mapped task.")
@click.option(
    "--worker",
    "worker_file",
    default="",
    metavar="FILE",
    help="Worker file with the profiles, instead of those on Modal: nothing is requested from Modal.",
)
@json_option
@app_option
@environment_option
def render(
    dag: str,
    task: str,
    run: str,
    map_index: int | None,
    worker_file: str,
    as_json: bool,
    app: str,
    environment: str,
) -> None:
    """Show what a task would ask of Modal.

    The output has the task's profile, image, options, variables and price per hour, and where each comes from. Nothing
    is submitted. If the executor would reject the task, you see its reason. Run it on a host with Airflow's database.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.single_task.finding import NamedTry, find_planned, find_try
    from modalflow.operations.single_task.profiles import read_profiles
    from modalflow.operations.single_task.reading import airflow_database
    from modalflow.operations.single_task.rendering import render as rendered_of
    from modalflow.operations.site import read_settings

    with errors_in_a_line():
        settings = read_settings(app, environment)
        with airflow_database() as conf:
            ti = find_try(NamedTry(dag, task, run, map_index)).ti if run else find_planned(dag, task, map_index)
        rendered = rendered_of(ti, settings, conf, read_profiles(settings, worker_file))
    if as_json:
        answer(json.dumps(_as_json(rendered), indent=1))
        return
    for line in _lines(rendered):
        show(line)


def _lines(rendered: Rendered) -> Iterator[str]:
    yield f"profile    {rendered.profile}  ({rendered.profile_source})"
    yield f"image      {rendered.image}"
    yield f"price      {_price(rendered)}"
    rows = [[name, _shown(value.value), value.source] for name, value in sorted(rendered.options.items())]
    yield "options" if rows else "options    none: Modal's defaults"
    yield from table(["option", "value", "from"], rows) if rows else ()
    yield "variables"
    names = sorted(rendered.variables.items(), key=lambda item: (item[1], item[0]))
    yield from table(["variable", "value", "from"], [[name, _MASKED, source] for name, source in names])
    for note in rendered.notes:
        yield click.style(note, fg="yellow")


def _price(rendered: Rendered) -> str:
    from modalflow.cost.rates import money

    if rendered.dollars_per_hour is None:
        return f"unknown: {rendered.price_problem}"
    return f"{money(rendered.dollars_per_hour)} per hour of a container (estimate, {rendered.rates})"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _as_json(rendered: Rendered) -> dict[str, Any]:
    dollars = rendered.dollars_per_hour
    return {
        "profile": {"name": rendered.profile, "from": rendered.profile_source},
        "image": rendered.image,
        "options": {name: {"value": v.value, "from": v.source} for name, v in sorted(rendered.options.items())},
        "variables": {name: {"from": source} for name, source in sorted(rendered.variables.items())},
        "dollars_per_hour": None if dollars is None else str(dollars),
        "rates": rendered.rates,
        "notes": rendered.notes,
    }
