"""``modalflow migrate``: what changes in DAG files of another executor. Owns texts and the exit code."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from modalflow.cli.terminal.common import answer, errors_in_a_line, json_option, show
from modalflow.cli.terminal.quiet_command import QuietCommand
from modalflow.cli.terminal.words import counted

if TYPE_CHECKING:
    from modalflow.operations.migration.plan import Part, Plan

#: The sign of each kind of finding.
_SIGNS = {"change": "→", "decide": "!", "drop": "·", "keep": "="}


@click.command(cls=QuietCommand, short_help="Show what changes in DAG files of another executor.")
@click.argument("folder", metavar="DAG_FOLDER", type=click.Path(path_type=Path))
@json_option
def migrate(folder: Path, as_json: bool) -> None:
    """Show what changes in DAG files whose tasks move from the KubernetesExecutor or CeleryExecutor to Modal.

    The command reads the source of the files in DAG_FOLDER. It runs none and changes none. The exit code is 1 if a
    person has to decide something, otherwise 0.
    """
    with errors_in_a_line():
        from modalflow.operations.migration.plan import read_folder

        plan = read_folder(folder)
    if as_json:
        answer(json.dumps(_wire(plan), indent=1, ensure_ascii=False))
    else:
        show("\n".join(_page(plan)))
    sys.exit(1 if plan.needs_a_person else 0)


def _page(plan: Plan) -> Iterable[str]:
    for finding in plan.unreadable:
        yield f"{finding.place.path}:{finding.place.line}: ! {finding.text}"
    for path, parts in itertools.groupby(plan.parts, lambda part: part.place.path):
        yield click.style(path, bold=True)
        for part in parts:
            yield from _part(part)
        yield ""
    if plan.images:
        yield from _profiles(plan.images)
    kinds = [finding.kind.value for finding in plan.findings]
    if not plan.parts and not plan.unreadable:
        yield f"Nothing to change in {counted(plan.files, 'file')}."
        return
    yield (
        f"{counted(plan.files, 'file')}: {counted(kinds.count('change'), 'change')} (→), "
        f"{counted(kinds.count('decide'), 'decision')} for you (!), {kinds.count('drop'):,} without a counterpart (·), "
        f"{kinds.count('keep'):,} unchanged (=)."
    )
    if any("cpu=" in part.new for part in plan.parts):
        yield "A core of Modal is a physical one, like two CPUs of a cluster in a cloud: half the number may do."


def _part(part: Part) -> Iterable[str]:
    yield f"{part.place.line:>5}  {part.task}".rstrip()
    if part.new == part.old:
        yield f"         {part.old}"
    else:
        yield click.style(f"       - {part.old}", fg="red")
        if part.new:
            yield click.style(f"       + {part.new}", fg="green")
    for finding in part.findings:
        elsewhere = "" if finding.place.path == part.place.path else f"{finding.place.path}:"
        sign = _SIGNS[finding.kind.value]
        yield f"         {elsewhere}{finding.place.line:<4} {sign} {finding.what}: {finding.text}"


def _profiles(images: dict[str, str]) -> Iterable[str]:
    yield "Profiles for a Worker file, for these images:"
    yield ""
    for image, name in images.items():
        yield f"    modalflow.Profile({name!r}, image=modal.Image.from_registry({image!r})),"
    yield ""


def _wire(plan: Plan) -> dict[str, Any]:
    def finding(each: Any) -> dict[str, Any]:
        return {
            "file": each.place.path,
            "line": each.place.line,
            "kind": each.kind.value,
            "what": each.what,
            "text": each.text,
        }

    return {
        "files": plan.files,
        "needs_a_person": plan.needs_a_person,
        "unreadable": [finding(each) for each in plan.unreadable],
        "parts": [
            {
                "file": part.place.path,
                "line": part.place.line,
                "task": part.task,
                "old": part.old,
                "new": part.new,
                "findings": [finding(each) for each in part.findings],
            }
            for part in plan.parts
        ],
        "profiles": [{"name": name, "image": image} for image, name in plan.images.items()],
    }
