"""Which modalflow is imported, and what is installed under that name."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import modalflow
from modalflow import __version__
from modalflow.support import installation
from tests.wheels import install_other_modalflow

SOURCES = Path(modalflow.__file__).parents[1]


def install_ours(folder: Path, version: str) -> Path:
    """Write the metadata of this project as another version of it has it."""
    about = folder / f"modalflow-{version}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: modalflow\nVersion: {version}\n")
    point = "[apache_airflow_provider]\nprovider_info = modalflow.provider:get_provider_info\n"
    (about / "entry_points.txt").write_text(point)
    return folder


def test_what_make_setup_installs_is_right() -> None:
    """In this environment the installed package is what is imported."""
    assert installation.problem() is None


def test_another_program_of_the_name_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The text has both versions, both places, and the commands that fix it."""
    site = install_other_modalflow(tmp_path)
    monkeypatch.syspath_prepend(site)
    text = str(installation.problem())
    assert f"Another program named modalflow, version 0.3.1, is installed in {site}" in text
    assert f"imported from {SOURCES}/modalflow as modalflow {__version__}" in text
    assert f"pip install 'dist/modalflow-{__version__}-py3-none-any.whl[airflow]'" in text
    assert "pip uninstall modalflow" in text and "docs/install.md" in text


def test_another_version_of_this_project_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An old installation beside a checkout, say: processes could import either."""
    monkeypatch.syspath_prepend(install_ours(tmp_path, "0.4.0"))
    found = installation.installed()
    assert found == installation.Installed("0.4.0", str(tmp_path), ours=True)
    text = str(installation.problem())
    assert f"modalflow {__version__} is imported from {SOURCES}" in text
    assert f"version 0.4.0 is installed in {tmp_path}" in text


def test_sources_that_are_not_installed_are_a_problem() -> None:
    """Airflow finds options, commands and policy by the installed package only."""
    script = "from modalflow.support import installation; print(installation.problem())"
    # Without site-packages, as in an environment where only PYTHONPATH leads here.
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        env=os.environ | {"PYTHONPATH": str(SOURCES)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert f"modalflow {__version__} is imported from {SOURCES}/modalflow and is not installed" in done.stdout


def test_the_api_servers_plugin_is_an_entry_point() -> None:
    """Airflow loads it without configuration."""
    [point] = metadata.distribution("modalflow").entry_points.select(group="airflow.plugins")
    assert "/modalflow" in [app["url_prefix"] for app in point.load().fastapi_apps]
