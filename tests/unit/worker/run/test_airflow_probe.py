"""The inspection of Airflow in a container, for `modalflow doctor`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modalflow.protocol.messages import Kind
from modalflow.protocol.probe import Question
from modalflow.worker.run import airflow_probe, airflow_view
from modalflow.worker.zygote.protocol import ForkRequest


def test_an_api_without_an_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time limit is half of the inspection's: with a second request, the other checks would not be made."""

    def no_request(*_: Any) -> Any:
        raise AssertionError("a second request")

    monkeypatch.setattr(airflow_probe, "_execution_api", lambda *_: {"url": "u", "error": "ReadTimeout: timed out"})
    monkeypatch.setattr(airflow_probe, "_token", no_request)
    for name in ("_hostname", "_bundles", "_remote_logging"):
        monkeypatch.setattr(airflow_probe, name, lambda *_: {})
    monkeypatch.setattr(airflow_view, "steps", lambda _: ())
    file = tmp_path / "findings.json"
    question = Question("id", "token").to_json()
    airflow_probe.inspect_airflow(
        ForkRequest(id="1", kind=Kind.PROBE, log_file=str(file), log_root=str(tmp_path), env={}, workload=question)
    )
    assert json.loads(file.read_text())["token"] == {"error": "ReadTimeout: timed out"}
