"""Which packages of this environment an image can have, and what is said of the others."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from modalflow.worker.deploy.mirror import mirror_environment, names_modalflow, pins
from tests.unit.worker.deploy.packages import installed


def test_what_came_from_an_index_is_pinned(tmp_path: Path) -> None:
    """Names as indexes have them, in their order; neither modalflow itself nor installers."""
    for name in ("Zope.Interface", "pandas", "modalflow", "pip"):
        installed(tmp_path, name)
    mirror = mirror_environment(metadata.distributions(path=[str(tmp_path)]))
    assert pins(mirror.packages) == ["pandas==1.0", "zope-interface==1.0"]
    assert not mirror.left_out


@pytest.mark.parametrize(
    ("origin", "message"),
    [
        (
            {"url": "file:///src/lib", "dir_info": {"editable": True}},
            "is editable from /src/lib; publish it, or add it",
        ),
        ({"url": "file:///src/lib", "dir_info": {}}, "was installed from /src/lib"),
        ({"url": "https://example.com/x.git", "vcs_info": {"vcs": "git"}}, "from https://example.com/x.git"),
        ({"url": "https://example.com/x.whl", "archive_info": {}}, "pip_install('https://example.com/x.whl')"),
    ],
)
def test_what_did_not_is_named_with_what_to_do(tmp_path: Path, origin: dict[str, Any], message: str) -> None:
    """An image could not have it by name and version, and nobody is to find that out from a failing task."""
    installed(tmp_path, "ours", origin=origin)
    mirror = mirror_environment(metadata.distributions(path=[str(tmp_path)]))
    assert not mirror.packages
    assert message in mirror.left_out["ours"]


def test_the_systems_packages_are_left_out(tmp_path: Path) -> None:
    """What Debian's package manager installed is on no index in that version, or is something else there."""
    installed(tmp_path / "dist-packages", "python-apt", "2.6.0")
    mirror = mirror_environment(metadata.distributions(path=[str(tmp_path / "dist-packages")]))
    assert "the system's package manager" in mirror.left_out["python-apt"]


@pytest.mark.parametrize("line", ["modalflow", "modalflow[airflow]", "Modalflow == 0.3.1  # from the index"])
def test_requirements_that_name_the_other_program(tmp_path: Path, line: str) -> None:
    """The line is found, however it is written; a package whose name only begins like it is another one."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# modalflow\nmodalflow-extras\nhttpx\n{line}\n")
    assert names_modalflow(requirements) == line
    requirements.write_text("modalflow-extras\n")
    assert not names_modalflow(requirements)


def test_the_first_of_two_counts(tmp_path: Path) -> None:
    """As for Python, which imports the one that comes first."""
    installed(tmp_path / "a", "pandas", "2.0")
    installed(tmp_path / "b", "pandas", "1.0")
    found = mirror_environment(metadata.distributions(path=[str(tmp_path / "a"), str(tmp_path / "b")]))
    assert found.packages == {"pandas": "2.0"}
