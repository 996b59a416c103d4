"""Which modalflow this process imports, and whether the installed package of that name is this project.

The public package index has another program that is also called modalflow and has the same import name, down to
``modalflow.executor.modal_executor.ModalExecutor``. Owns how this project is recognised, and the words for what is
wrong. Reads package metadata only: a leaf, cheap to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import modalflow
from modalflow import __version__

NAME = "modalflow"

#: The page that shows how to build and install the wheel.
PAGE = "docs/install.md"

#: The entry point that every version of this project has, and no other program: (group, value).
_OURS = ("apache_airflow_provider", "modalflow.provider:get_provider_info")


@dataclass(frozen=True)
class Problem:
    """What is wrong with an installation, and how to fix it."""

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
        """Return what a distribution's metadata says."""
        points = {(point.group, point.value) for point in distribution.entry_points}
        return cls(str(distribution.version), str(distribution.locate_file("")).rstrip("/"), _OURS in points)


def imported_from() -> str:
    """Return the folder of the package that this process imports."""
    return str(Path(modalflow.__file__).parent)


def installed() -> Installed | None:
    """Return the package named modalflow that Python and pip find first; None if there is none."""
    found = next(iter(metadata.distributions(name=NAME)), None)
    return None if found is None else Installed.found(found)


def wheel_name(extra: str = "") -> str:
    """Return the file name of this version's wheel as pip takes it, with an extra if one is given."""
    return f"{NAME}-{__version__}-py3-none-any.whl" + (f"[{extra}]" if extra else "")


def install_command(extra: str = "") -> str:
    """Return the command that installs this version from the wheel that `make wheel` builds."""
    return f"pip install 'dist/{wheel_name(extra)}'"


def foreign(version: str, folder: str) -> Problem:
    """Return the problem of another program that is installed under the same name."""
    return Problem(
        f"Another program named {NAME}, version {version}, is installed in {folder}; it is not this project, which is "
        f"imported from {imported_from()} as {NAME} {__version__}",
        f"Run `pip uninstall {NAME}`, then install the wheel that `make wheel` builds: {install_command('airflow')} "
        f"({PAGE}). The package index has the other program.",
    )


def problem() -> Problem | None:
    """Return what is wrong with the modalflow of this process; None if nothing is.

    Airflow finds the options, the commands and the DAG policy of modalflow through the installed package, so a process
    that imports this project while another package is installed works only in part.
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
