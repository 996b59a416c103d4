"""What `modalflow deploy` makes of Airflow's configuration."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest

from modalflow.errors import DeployError
from modalflow.worker.deploy import local_bundles
from modalflow.worker.environment import LOCAL_BUNDLE
from modalflow.worker.mirror import environment


def test_local_bundles_are_found_with_their_folders() -> None:
    """A bundle's own path counts, else the DAGs folder; bundles of other kinds are not on this machine."""
    listed = json.dumps(
        [
            {"name": "own", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/a"}},
            {"name": "default", "classpath": LOCAL_BUNDLE, "kwargs": {}},
            {"name": "git", "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": {}},
        ]
    )
    assert local_bundles(listed, "/dags") == {"own": Path("/a"), "default": Path("/dags")}


@pytest.mark.parametrize("listed", ["[", '{"name": "x"}', '[{"classpath": "x"}]'])
def test_a_malformed_bundle_list_names_the_setting(listed: str) -> None:
    """The error says which setting is wrong and what was expected."""
    with pytest.raises(DeployError, match=r"\[dag_processor\] dag_bundle_config_list"):
        local_bundles(listed, "/dags")


def test_the_image_gets_this_airflow_and_its_providers() -> None:
    """Every Airflow distribution of this environment is in the list, with the version installed here."""
    packages = environment().airflow
    assert packages["apache-airflow-core"] == metadata.version("apache-airflow-core")
    assert packages["apache-airflow-providers-standard"] == metadata.version("apache-airflow-providers-standard")
    assert all(name.startswith("apache-airflow") for name in packages)
