"""What `modalflow deploy` says of a deployment against the one before."""

from __future__ import annotations

import dataclasses
from typing import Any

from modalflow.protocol.messages import Deployment
from modalflow.worker.deploy.changes import changes

DEPLOYED = Deployment(
    version="1",
    protocol=1,
    airflow_version="3.3.1",
    python_version="3.12.1",
    profiles=("default", "gpu"),
    bundles={"dags": "/opt/dags"},
    deployed_at=1.0,
    facts={"default": {"timeout": 60}, "gpu": {"gpu": "T4", "env": {"A": "1", "B": "2"}}},
    packages={"pandas": "2.0", "old": "1.0"},
)


def told(before: Deployment | None, **changed: Any) -> set[tuple[str, str, str, str]]:
    after = dataclasses.replace(before or DEPLOYED, **changed)
    return {(str(c.kind), c.what, c.name, c.detail) for c in changes(before, after)}


def test_nothing_changes() -> None:
    """The same again, at another time, is no change."""
    assert told(DEPLOYED, deployed_at=2.0) == set()


def test_a_first_deployment_adds_everything() -> None:
    """Profiles with all that is said of them, bundles and packages."""
    assert told(None) >= {
        ("added", "profile", "default", "timeout=60"),
        ("added", "bundle", "dags", "/opt/dags"),
        ("added", "package", "pandas", "2.0"),
    }


def test_profiles_change_field_by_field() -> None:
    """Which field, from what to what; of variables the names only."""
    facts = {"default": {"timeout": 60, "cpu": 2.0}, "gpu": {"gpu": "L4", "env": {"A": "1", "B": "3", "C": "4"}}}
    assert told(DEPLOYED, facts=facts) == {
        ("changed", "profile", "default", "cpu Modal's own → 2.0"),
        ("changed", "profile", "gpu", "gpu T4 → L4; env: B, C"),
    }


def test_what_comes_and_goes() -> None:
    """A profile, a package, a bundle, the Airflow beneath."""
    assert told(
        DEPLOYED,
        profiles=("default", "etl"),
        facts={"default": {"timeout": 60}, "etl": {}},
        packages={"pandas": "2.1"},
        bundles={},
        airflow_version="3.3.2",
    ) == {
        ("added", "profile", "etl", ""),
        ("removed", "profile", "gpu", ""),
        ("changed", "package", "pandas", "2.0 → 2.1"),
        ("removed", "package", "old", ""),
        ("removed", "bundle", "dags", ""),
        ("changed", "Airflow", "", "3.3.1 → 3.3.2"),
    }


def test_a_record_of_an_older_modalflow_has_no_facts() -> None:
    """What it does not tell is not called a change."""
    old = dataclasses.replace(DEPLOYED, facts={})
    assert told(old, facts=DEPLOYED.facts) == set()
