"""Which versions an image with Airflow must have, and what is found to contradict them."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from modalflow.worker.deploy.constraints import Constraints, airflow_constraints, conflicts
from modalflow.worker.deploy.mirror import mirror_environment
from tests.unit.worker.deploy.packages import found, installed


def constraints_of(folder: Path) -> Constraints:
    return airflow_constraints(mirror_environment(found(folder)), found(folder))


def test_everything_that_airflow_requires_is_constrained(tmp_path: Path) -> None:
    """Also through others and through extras; what only others need, and what no machine like this needs, is not."""
    core = ["Fast.API[standard]>=1", "other; sys_platform == 'win32'", "docs; extra == 'docs'"]
    installed(tmp_path, "apache-airflow-core", "3.3.2", requires=core)
    installed(tmp_path, "fast_api", "1.5", requires=["deep", "uvloop; extra == 'standard'", "absent"])
    for name in ("deep", "uvloop", "other", "docs", "pandas"):
        installed(tmp_path, name)
    made = constraints_of(tmp_path)
    assert made.text == "apache-airflow-core==3.3.2\ndeep==1.0\nfast-api==1.5\nuvloop==1.0\n"
    assert not made.unconstrained


def test_packages_that_no_image_could_install_break_nothing(tmp_path: Path) -> None:
    """Not one from a folder, nor one that contradicts Airflow; a private build counts as its version."""
    core = ["ours", "old>=2", "torch", "pip"]
    installed(tmp_path, "apache-airflow-core", "3.3.2", requires=core)
    installed(tmp_path, "ours", origin={"url": "file:///src/ours", "dir_info": {"editable": True}})
    installed(tmp_path, "old", "1.9")
    installed(tmp_path, "torch", "2.5.1+cu124")
    installed(tmp_path, "pip", "25.0")
    made = constraints_of(tmp_path)
    assert dict(made.versions) == {"apache-airflow-core": "3.3.2", "torch": "2.5.1"}
    assert "is editable from /src/ours" in made.unconstrained["ours"]
    assert made.unconstrained["old"] == "this host has 1.9, and apache-airflow-core requires >=2"


def test_an_environment_without_airflow_has_none(tmp_path: Path) -> None:
    """Nothing is installed into its images, so there is nothing to constrain."""
    installed(tmp_path, "pandas")
    assert not constraints_of(tmp_path).versions


def test_this_environment_constrains_the_dependencies_of_airflow() -> None:
    """With real metadata: what Airflow imports is there in the installed version, a linter is not."""
    versions = airflow_constraints(mirror_environment()).versions
    assert versions["pydantic"] == metadata.version("pydantic")
    assert versions["apache-airflow-core"] == metadata.version("apache-airflow-core")
    assert "ruff" not in versions


@pytest.mark.parametrize(
    ("line", "conflict"),
    [
        ("Pydantic == 2.5.0  # ours", "line 2 asks for pydantic ==2.5.0, the Airflow host has 2.11.7"),
        ("pydantic<2 ; python_version > '3'", "line 2 asks for pydantic <2, the Airflow host has 2.11.7"),
        ("pydantic[email]!=2.11.7 \\\n --hash=sha256:00", "line 2 asks for pydantic !=2.11.7"),
        ("pydantic @ git+https://example.com/p", "line 2 asks for pydantic @ git+https://example.com/p, the Airflow"),
        ("pydantic>=2", ""),
        ("pydantic==2.5; sys_platform == 'win32'", ""),
        ("pandas==9.9", ""),
        ("./pydantic-1.0.whl", ""),
        ("-r more.txt", ""),
        ("-e git+https://example.com/p#egg=pydantic", ""),
    ],
)
def test_requirements_beside_the_constraints(tmp_path: Path, line: str, conflict: str) -> None:
    """A contradiction names the line and both versions; the file decides on everything that Airflow does not need."""
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"# what tasks need\n{line}\nhttpx\n")
    texts = conflicts(requirements, Constraints({"pydantic": "2.11.7"}))
    assert len(texts) == bool(conflict)
    assert "".join(texts).startswith(conflict)
