"""The modalflow imported by this process, and whether the installed package of this name is this project.

The public package index has another program with the same name and import name, even
``modalflow.executor.modal_executor.ModalExecutor``. Owns the recognition of this project, and the descriptions of
problems. Reads only package metadata: a leaf, cheap to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import modalflow
from modalflow import __version__

NAME = "modalflow"

#: The page about building and installing the wheel.
PAGE = "docs/install.md"

#: The entry point of every version of this project and of no other program: (group, value).
_OURS = ("apache_airflow_provider", "modalflow.provider:get_provider_info")


@dataclass(frozen=True)
class Problem:
    """A problem of an installation, and its fix."""

    what: str
    fix: str

    def __str__(self) -> str:
        return f"{self.what}. {self.fix}"


@dataclass(frozen=True)
class Installed:
    """A package named modalflow, as package metadata describes it."""

    version: str
    folder: str
    ours: bool
    """Whether it is this project, and not another program of the same name."""

    @classmethod
    def found(cls, distribution: metadata.Distribution) -> Installed:
        """Return a distribution's metadata."""
        points = {(point.group, point.value) for point in distribution.entry_points}
        return cls(str(distribution.version), str(distribution.locate_file("")).rstrip("/"), _OURS in points)


def imported_from() -> str:
    """Return the folder of the package imported by this process."""
    return str(Path(modalflow.__file__).parent)


def installed() -> Installed | None:
    """Return the first package named modalflow for Python and pip; None if there is none."""
    found = next(iter(metadata.distributions(name=NAME)), None)
    return None if found is None else Installed.found(found)


def wheel_name(extra: str = "") -> str:
    """Return the file name of this version's wheel as pip takes it, with an extra if one is given."""
    return f"{NAME}-{__version__}-py3-none-any.whl" + (f"[{extra}]" if extra else "")


def install_command(extra: str = "") -> str:
    """Return the command to install this version from the wheel of `make wheel`."""
    return f"pip install 'dist/{wheel_name(extra)}'"


def foreign(version: str, folder: str) -> Problem:
    """Return the problem of another program under the same name."""
    return Problem(
        f"Another program named {NAME}, version {version}, is installed in {folder}; it is not this project, which is "
        f"imported from {imported_from()} as {NAME} {__version__}",
        f"Run `pip uninstall {NAME}`, then install the wheel that `make wheel` builds: {install_command('airflow')} "
        f"({PAGE}). The package index has the other program.",
    )


def problem() -> Problem | None:
    """Return the problem of this process's modalflow; None if there is none.

    Airflow finds modalflow's options, commands and DAG policy through the installed package. If a process imports this
    project while another package is installed, it works only in part.
    """
    package = installed()
    if package is None:
        return Problem(
            f"{NAME} {__version__} is imported from {imported_from()} and is not installed, so Airflow does not find "
            "its options, its commands and its DAG policy",
            f"Install the wheel that `make wheel` builds: {install_command('airflow')} ({PAGE}).",
        )
    if not package.ours:
        return foreign(package.version, package.folder)
    if package.version != __version__:
        return Problem(
            f"{NAME} {__version__} is imported from {imported_from()}, but version {package.version} is installed in "
            f"{package.folder}: processes of this machine may import different versions",
            f"Install this version ({install_command('airflow')}), remove the other one, and restart Airflow ({PAGE}).",
        )
    return None
