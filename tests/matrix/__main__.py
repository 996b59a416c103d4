"""``make matrix``: the tests that depend on Airflow, on every Airflow that is supported, and a table of what they said.

Each version has an environment of its own. A suite that fails does not keep the others from running.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from modalflow.airflow_compat.versions import lacking

ROOT: Final = Path(__file__).parents[2]
REPORTS: Final = ROOT / ".matrix"

#: What is run, in this order: name → arguments of pytest.
SUITES: Final[Mapping[str, Sequence[str]]] = {
    "unit": ("tests/unit",),
    # The control plane and the SDK know nothing of Airflow: what can differ is what else is installed beside them.
    # These are the contracts that executor and worker rest on; `make test` runs all of them on the newest version.
    "contract": tuple(f"tests/contract/test_{name}.py" for name in ("auth", "dicts", "queues", "functions", "apps")),
    # The executor with a deployed worker, and the worker with Airflow's real supervisor.
    "worker": tuple(
        f"tests/integration/test_{name}.py"
        for name in (
            "executor",
            "executor_start",
            "worker",
            "deploy",
            "doctor",
            "doctor_settings",
            "provider",
            "replay",
        )
    ),
    # What an Airflow host gives to its tasks: configuration, files, and the way to the Execution API.
    "host": tuple(f"tests/integration/test_{name}.py" for name in ("host_configuration", "home_files", "relay")),
    # A real Airflow.
    "acceptance": ("tests/acceptance", "-m", "matrix"),
}


@dataclass(frozen=True)
class Result:
    """What one suite said on one version."""

    passed: int
    skipped: int
    failed: int
    seconds: float
    skips: Sequence[str]
    log: Path

    def __str__(self) -> str:
        bad = f", {self.failed} FAILED" if self.failed else ""
        return f"{self.passed} passed{f', {self.skipped} skipped' if self.skipped else ''}{bad}"


def environment_of(minor: str) -> Path:
    """The virtual environment of a minor version of Airflow: that of the checkout itself is the newest release's."""
    own = ROOT / f".venv-airflow-{minor}"
    return own if own.exists() else ROOT / ".venv"


def airflow_in(environment: Path) -> str:
    """The version of the Airflow in an environment."""
    ask = "from importlib.metadata import version; print(version('apache-airflow-core'))"
    return subprocess.run([environment / "bin/python", "-c", ask], capture_output=True, text=True, check=True).stdout[
        :-1
    ]


def run(environment: Path, suite: str, minor: str) -> Result:
    """Run one suite in one environment, its output going to a file."""
    folder = REPORTS / minor
    folder.mkdir(parents=True, exist_ok=True)
    log, report = folder / f"{suite}.log", folder / f"{suite}.xml"
    report.unlink(missing_ok=True)
    command = [str(environment / "bin/python"), "-m", "pytest", *SUITES[suite], f"--junitxml={report}"]
    began = time.monotonic()
    with log.open("wb") as output:
        code = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, check=False).returncode
    counts = {"tests": 0, "skipped": 0, "failures": 0, "errors": 0}
    skips: list[str] = []
    if report.exists():
        for found in ElementTree.parse(report).getroot().iter("testsuite"):
            counts = {name: counts[name] + int(found.get(name, 0)) for name in counts}
            skips += [skip.get("message", "") for skip in found.iter("skipped")]
    failed = counts["failures"] + counts["errors"]
    if code not in (0, 1) or (code and not failed):
        # It did not get as far as a report.
        failed += 1
    passed = counts["tests"] - counts["skipped"] - counts["failures"] - counts["errors"]
    return Result(passed, counts["skipped"], failed, time.monotonic() - began, skips, log)


def main(arguments: Sequence[str]) -> int:
    """Run what is asked for and print the table; 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.matrix", description=__doc__)
    parser.add_argument("minors", nargs="+", metavar="MINOR", help="3.2, for example")
    parser.add_argument("--suite", action="append", choices=SUITES, help="only this one; may be given again")
    options = parser.parse_args(arguments)
    suites = options.suite or list(SUITES)
    results: dict[tuple[str, str], Result] = {}
    versions = {minor: airflow_in(environment_of(minor)) for minor in options.minors}
    for minor in options.minors:
        for suite in suites:
            result = results[minor, suite] = run(environment_of(minor), suite, minor)
            print(f"Airflow {versions[minor]}, {suite}: {result} ({result.seconds:.0f} s)", flush=True)
            if result.failed:
                print(f"    {result.log}", flush=True)
    print()
    width = max(len(str(result)) for result in results.values())
    print(f"{'Airflow':10}", *(f"{suite:{width}}" for suite in suites), sep="  ")
    for minor, version in versions.items():
        print(f"{version:10}", *(f"{results[minor, suite]!s:{width}}" for suite in suites), sep="  ")
    for minor, version in versions.items():
        if missing := lacking(minor):
            print(f"\nAirflow {version} has not, of what the newest has:")
            print(*(f"  - {thing}" for thing in missing), sep="\n")
    return int(any(result.failed for result in results.values()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
