"""Airflow's plugins in a process of their own kind: which of them fail, and why."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.airflow_compat import plugins


@pytest.mark.parametrize(
    ("source", "error"),
    [
        (
            "def check():\n    raise RuntimeError('no licence server')\n\ncheck()\n",
            "RuntimeError: no licence server (acme_broken.py:2)",
        ),
        ("\nassert False\n", "AssertionError: an assertion does not hold (acme_broken.py:2)"),
    ],
)
def test_the_error_of_a_plugin_has_its_type_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, error: str
) -> None:
    """Airflow keeps the text alone, and a text such as a missing key's says little."""
    from airflow import settings

    file = tmp_path / "acme_broken.py"
    file.write_text(source)
    monkeypatch.setattr(settings, "PLUGINS_FOLDER", str(tmp_path))
    plugins.unload_plugins()
    try:
        errors = plugins.load_plugins()
    finally:
        monkeypatch.undo()
        plugins.unload_plugins()
    assert errors[str(file)] == error
