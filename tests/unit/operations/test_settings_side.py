"""The doctor's lines about settings: few, and with all that a user has to act on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_home.comparison import ComparedOption, Layers
from modalflow.airflow_home.host_home import HostHome
from modalflow.operations.doctor.findings import Finding
from modalflow.operations.doctor.settings_side import addresses, examine, folders, here
from modalflow.operations.host.host_configuration import HostConfiguration
from modalflow.protocol.messages import Deployment
from modalflow.protocol.probe import digest

SALT = "s"


def option(name: str, *, travels: bool = True) -> ComparedOption:
    return ComparedOption(
        "core", name, "here", travels=travels, reason="" if travels else "Only the scheduler reads it."
    )


def answer(name: str, value: str, **more: Any) -> dict[str, Any]:
    return {
        "section": "core",
        "option": name,
        "digest": digest(value, SALT),
        "shown": value,
        "origin": "default",
    } | more


def findings(here: list[ComparedOption] | None, **view: Any) -> list[Finding]:
    whole = {"options": [], "plugins": {"loaded": ["modalflow"], "errors": {}}, **view}
    return list(examine(whole, here, SALT, Layers(), "modalflow deploy"))


def test_all_holds() -> None:
    """One line with the counts; the table is for programs."""
    settings, plugins = findings([option("a"), option("b", travels=False)], options=[answer("a", "here")])
    assert settings.status == plugins.status == "ok"
    assert plugins.detail == "modalflow imported in the container"
    assert settings.detail == "2 options set here: 1 the same in the container, 1 kept here on purpose"
    assert [(row["option"], row["verdict"]) for row in settings.rows] == [("a", "same"), ("b", "kept on the host")]
    assert settings.rows[1]["reason"] == "Only the scheduler reads it."


def test_each_difference_has_a_line_up_to_a_limit() -> None:
    """The others are named in one line."""
    options = [option(f"o{number:02}") for number in range(12)]
    lines = findings(options, options=[answer(each.option, "there") for each in options])
    summary, *differences, more, _ = lines
    assert summary.status == "warn" and len(differences) == 8 and len(summary.rows) == 12
    assert differences[0].name == "[core] o00"
    assert differences[0].detail == "here 'here', in the container it is 'there': the container has Airflow's default"
    assert more.name == "more settings" and "4 more differ: [core] o08, [core] o09" in more.detail


def test_a_value_that_the_container_refuses() -> None:
    """Its line has the container's own error."""
    lines = findings([option("a")], options=[answer("a", "here", problem="Failed to convert value to int")])
    assert lines[1].status == "fail" and "refuses 'here': Failed to convert value to int" in lines[1].detail


def test_classes_and_plugins_that_cannot_be_imported() -> None:
    """Each has the container's error and a fix."""
    bad = {"section": "workers", "option": "state_store_backend", "path": "a.B", "problem": "No module named 'a'"}
    plugins = {"loaded": [], "errors": {"plugins/bad.py": "bad plugin"}}
    lines = findings(None, classes=[bad], plugins=plugins)
    assert [(line.name, line.status) for line in lines] == [
        ("[workers] state_store_backend", "fail"),
        ("plugins", "warn"),
    ]
    assert "cannot import a.B: No module named 'a'" in lines[0].detail and "worker's image" in lines[0].advice
    assert "plugins/bad.py failed in the container: bad plugin" in lines[1].detail


def test_a_package_that_a_setting_needs() -> None:
    """Without it, the setting would fail in tasks, or have no effect."""
    sentry = ComparedOption("sentry", "sentry_on", "True", travels=True)
    seen = [answer("sentry_on", "True") | {"section": "sentry"}]
    assert "sentry-sdk" in findings([sentry], options=seen, packages={"numpy": "1"})[1].detail
    assert [line.status for line in findings([sentry], options=seen, packages={"sentry-sdk": "2"})] == ["ok", "ok"]


def test_coordinators_are_named() -> None:
    """No check starts one."""
    option_of_sdk = ComparedOption("sdk", "coordinators", '{"jdk": {"classpath": "a.Java"}}', travels=True)
    line = next(line for line in findings([option_of_sdk]) if line.name == "coordinators")
    assert line.status == "ok" and "jdk (Java): not tested" in line.detail


def test_what_cannot_be_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that fails is a line of its own, without its output. The scheduler goes on, so the doctor does."""
    monkeypatch.setenv("AIRFLOW__SENTRY__SENTRY_DSN_CMD", "sh -c 'echo planted; exit 3'")
    host, lines = here(own_conf())
    assert host is not None
    (line,) = (line for line in lines if "sentry_dsn" in line.detail)
    assert line.status == "warn" and line.advice and "planted" not in line.detail


def test_an_older_worker() -> None:
    """It compares nothing, and the doctor says so."""
    (line,) = examine({}, [option("a")], SALT, Layers(), "modalflow deploy", "the worker is older")
    assert line.status == "skip" and "older" in line.detail


def test_an_address_of_this_machine_is_named() -> None:
    """A task on Modal would send its metrics or lineage to itself. The value may hold a secret, and is not shown."""
    home = HostHome(
        {
            "metrics": {"statsd_host": "localhost", "statsd_port": "8125"},
            "environment variables": {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4318"},
            "api": {"base_url": "http://localhost:8080"},
            "acme": {"host": "localhost.example.com", "path": "/srv/127.0.0.1.log"},
        },
        {"openlineage": {"transport": '{"url": "http://user:word@127.0.0.1:5000"}'}},
    )
    (found,) = addresses(HostConfiguration((), home))
    assert found.detail.endswith(
        ": [metrics] statsd_host, [openlineage] transport, the variable OTEL_EXPORTER_OTLP_ENDPOINT"
    )
    assert "word" not in str(found)
    assert list(addresses(HostConfiguration((), HostHome({})))) == []


@pytest.mark.parametrize("path", ["file:///srv/xcoms/a", "/srv/xcoms/a/"])
def test_a_folder_of_this_machine_needs_a_mount_in_each_profile(path: str) -> None:
    """Each container has another folder there, so that a task does not find the XComs of another one."""
    host = HostConfiguration((), HostHome({"common.io": {"xcom_objectstorage_path": path}}))
    mounted = {"volumes": {"/srv/xcoms": "bucket acme"}}
    deployment = Deployment("", 1, "", "", ("default", "gpu"), {}, 0.0, facts={"gpu": mounted})
    (found,) = folders(host, deployment)
    assert found.status == "warn" and "[common.io] xcom_objectstorage_path is the folder /srv/xcoms/a" in found.detail
    assert "(profiles without a mount there: default)" in found.detail and "`volumes`" in (found.advice or "")
    assert list(folders(host, replace(deployment, profiles=("gpu",)))) == []


def test_an_object_storage_needs_no_mount() -> None:
    """It means the same place everywhere."""
    host = HostConfiguration((), HostHome({"common.io": {"xcom_objectstorage_path": "s3://aws@acme/xcoms"}}))
    assert list(folders(host, Deployment("", 1, "", "", ("default",), {}, 0.0))) == []
