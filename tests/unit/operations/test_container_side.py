"""What a container answers to `modalflow doctor`: its word only, whatever it says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow import __version__
from modalflow.airflow_home.comparison import ComparedOption
from modalflow.operations.doctor import container_side
from modalflow.operations.doctor.findings import Finding
from modalflow.operations.doctor.token_side import Trial
from tests.strange import JSON_VALUES

SITE: Any = SimpleNamespace(
    deploy_command="modalflow deploy", names=SimpleNamespace(app="a"), control_plane=SimpleNamespace(environment="")
)
BUNDLES = st.lists(st.dictionaries(st.sampled_from(["name", "path", "files", "seconds", "error"]), JSON_VALUES))
VIEWS = st.dictionaries(
    st.sampled_from(
        [
            "version",
            "hostname",
            "execution_api",
            "bundles",
            "remote_logging",
            "options",
            "classes",
            "plugins",
            "packages",
        ]
    ),
    JSON_VALUES
    | st.dictionaries(st.sampled_from(["errors", "loaded", "local_settings", "error", "numpy"]), JSON_VALUES)
    | st.lists(
        st.dictionaries(
            st.sampled_from(["name", "path", "files", "seconds", "error", "section", "option", "shown", "problem"]),
            JSON_VALUES | st.just("core") | st.just("default_timezone"),
        )
    ),
)
PROBES = st.dictionaries(
    st.sampled_from(["cloud", "region", "time", "problem", "container_id", "variables", "python_version"]), JSON_VALUES
)
HOST = container_side.Host(
    [ComparedOption("core", "default_timezone", "Europe/Berlin", travels=True)],
    {"apache-airflow-core": "3.3.2", "numpy": "2.1.0"},
)


@settings(deadline=None, max_examples=30)
@given(PROBES, VIEWS | JSON_VALUES)
def test_any_answer_becomes_findings(probe: dict[str, Any], view: object) -> None:
    """Each is a line that a terminal shows, and that JSON can hold."""
    with mock.patch.object(container_side, "_ask", return_value={"probe": probe | {"airflow": view}}):
        for finding in container_side.examine(SITE, "default", {}, 1.0, host=HOST):
            line = f"{finding.name} {finding.detail} {finding.advice}"
            line.encode()
            assert not set(line) & {"\n", "\x1b", "\x00"}
            json.dumps(finding.to_wire(), allow_nan=False)


@pytest.mark.parametrize("answer", [None, 7, "text", {"reason": "\x1b[2J"}, {"probe": 3}])
def test_any_other_answer_is_a_finding_as_well(answer: object) -> None:
    """An older worker has no answer of this form."""
    with mock.patch.object(container_side, "_ask", return_value=answer):
        (finding,) = container_side.examine(SITE, "default", {}, 1.0)
    assert "older" in finding.detail and "\x1b" not in finding.detail


def _findings(view: dict[str, Any], *, problem: str = "", version: str = __version__) -> list[Finding]:
    probe = {"worker_version": version, "problem": problem, "airflow": {"version": "3.3.2", **view}}
    trial = Trial("id", "[api_auth] jwt_secret", "token")
    with mock.patch.object(container_side, "_ask", return_value={"probe": probe}):
        return list(container_side.examine(SITE, "default", {}, 1.0, trial, HOST, relay="key:public"))


def test_without_an_answering_relay_the_doctor_names_the_relay() -> None:
    """A private Airflow needs no URL and no open firewall, so the doctor recommends neither."""
    api = {"url": "http://localhost:8080/execution/", "seconds": 30.1, "error": "ReadTimeout: timed out"}
    findings = _findings({"execution_api": api, "token": {"error": api["error"]}})
    (finding,) = [each for each in findings if each.name == "execution API"]
    assert finding.status == "fail" and "no relay answered the container within 30 s" in finding.detail
    assert "modalflow relay" in finding.advice
    assert not any("firewall" in each.advice or "execution_api_url" in each.advice for each in findings)


def test_an_interrupted_inspection_is_no_older_worker() -> None:
    """Missing parts are explained by the time limit, and no check both fails and passes."""
    findings = _findings({}, problem="The inspection of Airflow took more than 60 s in the container.")
    (airflow,) = [each for each in findings if each.name == "Airflow in the container"]
    assert airflow.status == "fail" and "3.3.2" in airflow.detail and "60 s" in airflow.detail
    skipped = {each.name: each.detail for each in findings if each.status == "skip"}
    for name in ("task token in the container", "settings"):
        assert "the inspection of the container ended" in skipped[name]
    assert not any("deploy" in detail for detail in skipped.values())


def test_an_older_worker_is_named_by_its_version() -> None:
    """A worker without a test is to be deployed again."""
    skipped = {each.name: each.detail for each in _findings({}, version="0.1") if each.status == "skip"}
    for name in ("task token in the container", "settings"):
        assert "modalflow 0.1" in skipped[name] and "`modalflow deploy`" in skipped[name]
