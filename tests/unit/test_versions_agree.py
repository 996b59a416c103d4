"""One version: the package's, pyproject's, the options' and the changelog's."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from modalflow import __version__
from modalflow.config.settings import OPTIONS

CHECKOUT = Path(__file__).parents[2]

#: The version that this one is, or that it leads to.
RELEASE = re.sub(r"\.dev\d+$", "", __version__)


def numbers(version: str) -> tuple[int, ...]:
    """Return a released version's numbers."""
    return tuple(map(int, version.split(".")))


def test_pyproject_has_the_packages_version() -> None:
    """And so has what is installed here."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    assert project["version"] == __version__
    assert metadata.version("modalflow") == __version__, "run `make setup`"


def test_the_changelog_begins_with_this_version() -> None:
    """A development version with the section of the next release, a release with its date."""
    sections = re.findall(r"^## (.+)$", (CHECKOUT / "CHANGELOG.md").read_text(), re.MULTILINE)
    when = "unreleased" if __version__ != RELEASE else r"\d{4}-\d\d-\d\d"
    assert re.fullmatch(rf"\[{re.escape(RELEASE)}\] - {when}", sections[0]), sections[0]


def test_options_were_added_in_a_version_that_exists() -> None:
    """At the latest in the one that the changelog begins with."""
    late = {option.name: option.version_added for option in OPTIONS if numbers(option.version_added) > numbers(RELEASE)}
    assert not late


def test_the_package_has_urls() -> None:
    """They are in the installed metadata, as an index would show them."""
    urls = metadata.metadata("modalflow").get_all("Project-URL") or []
    assert urls and all(", https://" in url for url in urls)
