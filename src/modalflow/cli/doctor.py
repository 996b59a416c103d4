"""``modalflow doctor``: check the installation, and show how to fix it.

Owns texts and exit codes. ``modalflow.operations.doctor`` owns the checks.
"""

from __future__ import annotations

import json
import sys

import click

from modalflow.cli.terminal.common import answer, app_option, environment_option, json_option, show
from modalflow.cli.terminal.quiet_command import QuietCommand

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red", "skip": "bright_black"}
_NAME_WIDTH = 26


@click.command(cls=QuietCommand)
@app_option
@environment_option
@click.option("--profile", "profiles", multiple=True, help="Profile to check in a container. You can repeat it.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=120.0,
    show_default=True,
    help="Limit for the answer of a container in seconds, including its start.",
)
@json_option
def doctor(app: str, environment: str, profiles: tuple[str, ...], timeout: float, as_json: bool) -> None:
    """Check everything a task on Modal needs, from this machine to inside a container.

    Each line is ok, warn, fail or skip, with advice. The command starts one container and asks for its view, so you pay
    for a few seconds. The exit code is 1 if a check failed.
    """
    # Imports Modal, and Airflow's configuration.
    from modalflow.operations.doctor.doctor import examine
    from modalflow.operations.doctor.findings import Status

    findings = []
    for finding in examine(app=app, environment=environment, profiles=profiles, timeout=timeout):
        findings.append(finding)
        if not as_json:
            time = f"  ({finding.seconds * 1000:.0f} ms)" if finding.seconds is not None else ""
            status = click.style(f"{finding.status.value:4}", fg=_COLOURS[finding.status.value])
            show(f"{status}  {finding.name:{_NAME_WIDTH}} {finding.detail}{time}")
            if finding.advice:
                show(f"      {'':{_NAME_WIDTH}} → {finding.advice}")
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
