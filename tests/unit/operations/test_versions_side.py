"""The versions of a container beside this machine's."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from modalflow.operations.doctor.findings import Finding
from modalflow.operations.doctor.versions_side import examine

HERE = {
    "apache-airflow": "3.3.2",
    "apache-airflow-core": "3.3.2",
    "apache-airflow-providers-amazon": "9.1.0",
    "apache-airflow-providers-git": "1.0.1",
    "numpy": "2.1.0",
    "requests": "2.32.0",
}
PYTHON = {"python_version": platform.python_version()}


def findings(packages: Any, seen: dict[str, Any] = PYTHON) -> dict[str, Finding]:
    return {finding.name: finding for finding in examine(seen, packages, HERE, "modalflow deploy")}


def test_all_is_the_same() -> None:
    """Two lines, and no table."""
    found = findings(dict(HERE))
    assert {name: (finding.status, finding.rows) for name, finding in found.items()} == {
        "providers": ("ok", ()),
        "packages": ("ok", ()),
    }


@pytest.mark.parametrize(
    ("changed", "name", "status", "detail"),
    [
        ({"apache-airflow-providers-git": ""}, "providers", "warn", "apache-airflow-providers-git is missing"),
        ({"apache-airflow-providers-git": "2.0"}, "providers", "warn", "2.0 (here 1.0.1)"),
        ({"apache-airflow-providers-git": "1.2"}, "providers", "ok", "1.2 (here 1.0.1)"),
        ({"apache-airflow-core": "3.1.8"}, "providers", "fail", "cannot read each other's data"),
        ({"apache-airflow-core": "3.3.1"}, "providers", "ok", "3.3.1 (here 3.3.2)"),
        ({"numpy": "1.26"}, "packages", "warn", "numpy 1.26 (here 2.1.0): they may not read each other's data"),
        ({"numpy": "2.2"}, "packages", "ok", "1 of 2 are the same, 1 have other versions"),
        ({"numpy": ""}, "packages", "ok", "1 are not in the image"),
        ({"requests": "9"}, "packages", "ok", "1 have other versions"),
    ],
)
def test_a_difference(changed: dict[str, str], name: str, status: str, detail: str) -> None:
    """Another version matters by what the package does; every difference is in the table."""
    there = {package: version for package, version in (HERE | changed).items() if version}
    finding = findings(there)[name]
    assert finding.status == status and detail in finding.detail and bool(finding.advice) == (status != "ok")
    (package,) = changed
    assert finding.rows == ({"package": package, "host": HERE[package], "container": changed[package]},)


def test_the_package_without_code_may_be_missing() -> None:
    """An image needs Airflow's parts alone."""
    there = {name: version for name, version in HERE.items() if name != "apache-airflow"}
    assert findings(there)["providers"].rows == ()


def test_another_python() -> None:
    """The patch version does not matter."""
    assert findings(dict(HERE), {"python_version": "3.7.1"})["Python in the container"].status == "warn"


@pytest.mark.parametrize("packages", [None, {}, [], "x", {"error": "OSError"}])
def test_an_older_worker_reports_no_packages(packages: object) -> None:
    """Then there is nothing to compare."""
    assert findings(packages) == {}
