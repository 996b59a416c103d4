"""Replaced names of other projects: their description, check and replacement.

The rows are data. Those of Modal's SDK are in ``support.replaced_in_sdk``, and those of Airflow and its libraries in
``airflow_compat.replaced``. Every replacement goes through a row, so a vanished name is noticed: a test checks all rows
with each supported version, and ``replace`` raises ReplacedNameError. Imports only the standard library.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from importlib import import_module
from typing import Any


class ReplacedNameError(AttributeError):
    """The installed version of a project lacks a replaced name."""


@dataclass(frozen=True)
class ReplacedName:
    """A replaced name of another project."""

    name: str
    """``module:attribute`` or ``module:Class.attribute``."""
    why: str
    by: str
    """The replacing module, without ``modalflow.``."""
    since: str = ""
    """The first minor version with the name, such as 3.2; empty for all supported versions."""
    until: str = ""
    """The last minor version with the replacement; empty for the newest."""
    of_instances: bool = False
    """Whether only objects have the attribute, and not their class."""

    @property
    def module(self) -> str:
        return self.name.partition(":")[0]

    @property
    def attribute(self) -> str:
        return self.name.rpartition(":")[2].rpartition(".")[2]

    def applies_to(self, version: str) -> bool:
        """Return whether a version of the project has the name and modalflow replaces it there."""
        minor = _minor(version)
        return _minor(self.since or "0") <= minor and (not self.until or minor <= _minor(self.until))

    def exists(self) -> bool:
        """Return whether the installed version of the project has the name. Imports its module."""
        try:
            owner = self.owner()
        except (ImportError, AttributeError):
            return False
        if hasattr(owner, self.attribute) or self.attribute in getattr(owner, "__annotations__", {}):
            return True
        return self.of_instances and f"self.{self.attribute}" in inspect.getsource(owner)

    def owner(self) -> Any:
        """Return the module or class of the name. Imports its module."""
        return self._owner_in(import_module(self.module))

    def owner_if_loaded(self) -> Any | None:
        """Return the module or class of the name; None if this process has not imported it, or lacks it."""
        module = sys.modules.get(self.module)
        try:
            return None if module is None else self._owner_in(module)
        except AttributeError:
            return None

    def original(self) -> Any:
        """Return the present value. Raises ReplacedNameError."""
        try:
            return getattr(self.owner(), self.attribute)
        except (ImportError, AttributeError) as error:
            raise ReplacedNameError(
                f"{self.name} does not exist in the installed version, and modalflow replaces it in {self.by}: "
                f"{self.why}"
            ) from error

    def _owner_in(self, module: Any) -> Any:
        classes = self.name.rpartition(":")[2].split(".")[:-1]
        return reduce(getattr, classes, module)


def replace(row: ReplacedName, new: Any) -> None:
    """Replace a name for the rest of this process. Raises ReplacedNameError if it does not exist."""
    row.original()
    setattr(row.owner(), row.attribute, new)


@contextlib.contextmanager
def replaced(row: ReplacedName, new: Any) -> Iterator[None]:
    """Replace a name within a context. Raises ReplacedNameError if it does not exist."""
    original = row.original()
    setattr(row.owner(), row.attribute, new)
    try:
        yield
    finally:
        setattr(row.owner(), row.attribute, original)


def assign(row: ReplacedName, owner: Any, value: Any) -> None:
    """Assign the attribute of a row to the caller's module, class or object."""
    setattr(owner, row.attribute, value)


def _minor(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2])
