"""Checks of the versions in a container against this machine's: Python, Airflow, its providers, other packages.

A container's report is untrusted data, and any part of it may be missing.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modalflow.operations.doctor.findings import Finding, fail, ok, warn, with_rows
from modalflow.support.text import ID, one_line

_PROVIDER = "apache-airflow-providers-"
_AIRFLOW = "apache-airflow"
#: Airflow itself: another minor version cannot read the data of the host's.
_CORE = ("apache-airflow-core", "apache-airflow-task-sdk")
#: It has no code of its own, and an image can do without it.
_META = "apache-airflow"
#: Readers of data of the other side: XComs, pickles, serialized DAGs, frames. Another major version can fail.
_IMPORTANT = frozenset(
    {
        "cloudpickle",
        "cryptography",
        "deltalake",
        "dill",
        "jinja2",
        "modal",
        "msgspec",
        "numpy",
        "pandas",
        "pendulum",
        "polars",
        "protobuf",
        "pyarrow",
        "pydantic",
        "pyiceberg",
        "sqlalchemy",
    }
)
#: The most packages named on one line.
_NAMED = 6


@dataclass(frozen=True)
class Difference:
    """A package of this machine, and its other version in a container, or its absence."""

    name: str
    here: str
    there: str
    """Empty if it is missing."""

    @property
    def words(self) -> str:
        """Return it for a line."""
        return f"{self.name} {self.there} (here {self.here})" if self.there else f"{self.name} is missing"

    @property
    def is_major(self) -> bool:
        """Return whether the two versions can be incompatible."""
        if not self.there or _major(self.here) != _major(self.there):
            return True
        return self.is_core and self.here.split(".")[:2] != self.there.split(".")[:2]

    @property
    def is_core(self) -> bool:
        return self.name in _CORE

    @property
    def is_airflow(self) -> bool:
        return self.name.startswith(_AIRFLOW)


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[Difference]:
    """Return the different packages, in the order of their names."""
    found = (Difference(name, version, there.get(name, "")) for name, version in sorted(here.items()))
    return [each for each in found if each.here != each.there and each.name != _META]


def examine(
    seen: Mapping[str, Any], packages: object, here: Mapping[str, str], deploy_command: str
) -> Iterator[Finding]:
    """Yield the findings about a container; none about packages if it did not report them."""
    theirs, ours = str(seen.get("python_version") or ""), platform.python_version()
    if theirs and theirs.split(".")[:2] != ours.split(".")[:2]:
        yield warn(
            "Python in the container",
            f"the container's is {theirs[:40]}, here it is {ours}: a DAG file or a pickled value may not work there",
            f"Use the host's minor version in the image, and deploy again: `{deploy_command}`.",
        )
    if not isinstance(packages, dict) or not packages or "error" in packages:
        return
    there = {one_line(name, ID): one_line(version, ID) for name, version in packages.items()}
    if not any(name.startswith(_AIRFLOW) for name in here):
        return
    found = differences(here, there)
    yield _providers([each for each in found if each.is_airflow], here, deploy_command)
    yield _others([each for each in found if not each.is_airflow], here, deploy_command)


def _providers(found: list[Difference], here: Mapping[str, str], deploy_command: str) -> Finding:
    name, count = "providers", sum(package.startswith(_PROVIDER) for package in here)
    if not found:
        return ok(name, f"Airflow's packages and the {count} providers are the host's, in the same versions")
    grave = [each for each in found if each.is_major]
    rows = [_as_row(each) for each in found]
    advice = f"Deploy from the environment of the scheduler, or install them in your own image: `{deploy_command}`."
    if any(each.is_core for each in grave):
        finding = fail(name, f"{_listed(grave)}: the two sides cannot read each other's data", advice)
    elif grave:
        finding = warn(name, f"{_listed(grave)}: tasks that use them may fail on Modal", advice)
    else:
        finding = ok(name, f"compatible with the host's; other versions: {_listed(found)}")
    return with_rows(finding, rows)


def _others(found: list[Difference], here: Mapping[str, str], deploy_command: str) -> Finding:
    """Judge the other packages. A worker with requirements of its own has fewer, on purpose."""
    name, count = "packages", sum(not package.startswith(_AIRFLOW) for package in here)
    missing = sum(not each.there for each in found)
    grave = [each for each in found if each.name in _IMPORTANT and each.there and each.is_major]
    figures = f"{count - len(found)} of {count} are the same, {len(found) - missing} have other versions"
    if missing:
        figures += f", {missing} are not in the image"
    if grave:
        advice = f"Pin the host's versions in the requirements or the image, and deploy again: `{deploy_command}`."
        finding = warn(name, f"{_listed(grave)}: they may not read each other's data; {figures}", advice)
    else:
        finding = ok(name, figures if found else f"all {count} of this machine are there, in the same versions")
    return with_rows(finding, [_as_row(each) for each in found])


def _as_row(difference: Difference) -> dict[str, str]:
    return {"package": difference.name, "host": difference.here, "container": difference.there}


def _listed(found: list[Difference]) -> str:
    more = f", and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
    return ", ".join(each.words for each in found[:_NAMED]) + more


def _major(version: str) -> str:
    """Return the part of a version whose change can break users: the first number, and the second below version 1."""
    parts = version.split(".")
    return ".".join(parts[:2]) if parts[0] == "0" else parts[0]
