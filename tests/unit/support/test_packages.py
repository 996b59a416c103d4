"""Names of packages."""

from __future__ import annotations

from importlib import metadata

import pytest

from modalflow.support.packages import installed_packages, named_package


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Foo_Bar==1.0", "foo-bar"),
        ("foo[extra]>=1; python_version > '3'", "foo"),
        (" foo ", "foo"),
        ("foo @ https://x", "foo"),
    ],
)
def test_the_package_of_a_requirement(line: str, name: str) -> None:
    """In the form of package indexes."""
    assert named_package(line) == name


def test_what_is_installed_here() -> None:
    """Every package that Python imports, with its version."""
    assert installed_packages()["pytest"] == metadata.version("pytest")
