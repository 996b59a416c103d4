"""What a container answers to `modalflow doctor`: its word only, whatever it says."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.airflow_home.comparison import ComparedOption
from modalflow.operations.doctor import container_side
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
