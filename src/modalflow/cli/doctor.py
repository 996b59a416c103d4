"""``modalflow doctor``: is everything right, and if not, what mends it?

Owns words and exit codes. The checks are modalflow.operations.doctor.doctor's.
"""

from __future__ import annotations

import json
import sys

import click

from modalflow.cli.terminal.common import answer, app_option, environment_option, json_option, quiet, show
from modalflow.cli.terminal.quiet_command import QuietCommand

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_NAME_WIDTH = 26


@click.command(cls=QuietCommand)
@app_option
@environment_option
@click.option("--profile", "profiles", multiple=True, help="Profile whose container is asked; may be repeated.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="Seconds that a container may take to answer, its start included.",
)
@json_option
def doctor(app: str, environment: str, profiles: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Check everything that a task on Modal needs, from here to inside a container.

    Each line is ok, warn, fail or skip, with what mends it. One container is started and asked what it sees, which
    costs a few seconds of it. The exit code is 1 if a check failed.
    """
    # Imports Modal, and Airflow's configuration.
    with quiet():
        from modalflow.operations.doctor.doctor import examine
        from modalflow.operations.doctor.findings import Status

    findings = []
    examination = examine(app=app, environment=environment, profiles=profiles, timeout=timeout)
    while True:
        with quiet():
            finding = next(examination, None)
        if finding is None:
            break
        findings.append(finding)
        if not as_json:
            time = f"  ({finding.seconds * 1000:.0f} ms)" if finding.seconds is not None else ""
            status = click.style(f"{finding.status.value:4}", fg=_COLOURS[finding.status.value])
            show(f"{status}  {finding.name:{_NAME_WIDTH}} {finding.detail}{time}")
            if finding.mend:
                show(f"      {'':{_NAME_WIDTH}} → {finding.mend}")
    failed = sum(finding.status is Status.FAIL for finding in findings)
    if as_json:
        answer(json.dumps({"ok": not failed, "findings": [finding.to_wire() for finding in findings]}, indent=1))
    else:
        warned = sum(finding.status is Status.WARN for finding in findings)
        skipped = sum(finding.status is Status.SKIP for finding in findings)
        counts = {"failed": failed, "with a warning": warned, "skipped": skipped}
        show(f"\n{len(findings)} checks: " + (_counted(counts) or "all passed") + ".")
    sys.exit(1 if failed else 0)


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {what}" for what, number in counts.items() if number)
