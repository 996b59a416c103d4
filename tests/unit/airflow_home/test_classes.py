"""The classes in values of options."""

from __future__ import annotations

import pytest

from modalflow.airflow_home.classes import classes_of, coordinators, package_of


@pytest.mark.parametrize(
    ("section", "option", "value", "classes"),
    [
        ("core", "xcom_backend", "acme.xcom.FileXCom", ["acme.xcom.FileXCom"]),
        ("core", "xcom_backend", "", []),
        ("core", "xcom_backend", "no class", []),
        ("core", "default_timezone", "acme.xcom.FileXCom", []),
        ("openlineage", "extractors", "a.B; c.D ;", ["a.B", "c.D"]),
        ("openlineage", "transport", '{"type": "acme.Transport"}', ["acme.Transport"]),
        ("openlineage", "transport", '{"type": "file"}', []),
        ("openlineage", "transport", "{", []),
        ("sdk", "coordinators", '{"jdk": {"classpath": "a.Java"}, "go": {}}', ["a.Java"]),
        ("sdk", "coordinators", "[1]", []),
        ("sdk", "coordinators", '{"jdk": 1}', []),
    ],
)
def test_what_a_container_must_import(section: str, option: str, value: str, classes: list[str]) -> None:
    """Each option has its own form; a malformed value names nothing."""
    assert classes_of(section, option, value) == classes


@pytest.mark.parametrize(
    ("option", "value", "package"),
    [("sentry_on", "True", "sentry-sdk"), ("sentry_on", "False", ""), ("sentry_on", "", ""), ("sentry_dsn", "x", "")],
)
def test_what_a_container_must_have_installed(option: str, value: str, package: str) -> None:
    """Only an option that is on needs a package."""
    assert package_of("sentry", option, value) == package


def test_coordinators_have_names() -> None:
    """Also one without a class."""
    assert coordinators('{"jdk": {"classpath": "a.Java"}, "go": {}}') == {"jdk": "a.Java", "go": ""}
