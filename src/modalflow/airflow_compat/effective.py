"""The effective configuration of this process's Airflow, and whether Airflow accepts it.

For `modalflow doctor`, in a container. Changes nothing, except for imports of the configured classes.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import import_module
from typing import Any

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.host_options import HostOption, HostOptions, declared_options
from modalflow.support.described import describe

#: Where a value is from, if it is not set.
DEFAULT, NOWHERE = "default", "nowhere"
#: The type of an option in Airflow's description → its method of the configuration.
_READERS = {"integer": "getint", "float": "getfloat", "boolean": "getboolean"}


@dataclass(frozen=True)
class Effective:
    """An option as this Airflow has it."""

    value: str | None = field(repr=False)
    """None if it is neither set nor has a default."""
    origin: str
    """A ``Source`` of Airflow's options, DEFAULT or NOWHERE."""
    known: bool
    """Whether this Airflow or one of its providers declares the option."""
    problem: str = ""
    """Airflow's reason to refuse the value. It can contain the value."""

    @property
    def is_set(self) -> bool:
        return self.origin not in (DEFAULT, NOWHERE)


class EffectiveOptions:
    """The options of this process's Airflow. Creating one loads the options of the providers."""

    def __init__(self) -> None:
        self._conf: Any = own_conf()
        self._options = HostOptions()
        self._declared = declared_options()

    def get(self, section: str, option: str) -> Effective:
        """Return an option's value, where it is from, and whether Airflow can read it. Raises nothing."""
        declared = self._declared.get((section, option))
        known = declared is not None
        found = self._set.get((section, option))
        origin = DEFAULT if found is None else found.source.value
        with warnings.catch_warnings():
            # Old names of options are a matter between Airflow and its user.
            warnings.simplefilter("ignore")
            try:
                value = self._conf.get(section, option, fallback=None)
            except Exception as error:  # noqa: BLE001  A command or a secrets backend of the user's can raise anything.
                return Effective(None, origin, known, describe(error))
            if value is None:
                return Effective(None, NOWHERE, known)
            kind = str((declared or {}).get("type"))
            return Effective(str(value), origin, known, self._refusal(section, option, kind) if value else "")

    @cached_property
    def _set(self) -> Mapping[tuple[str, str], HostOption]:
        return {(option.section, option.option): option for option in self._options.set_options()}

    def _refusal(self, section: str, option: str, kind: str) -> str:
        if (reader := _READERS.get(kind)) is None:
            return ""
        try:
            getattr(self._conf, reader)(section, option)
        except Exception as error:  # noqa: BLE001  Airflow's own class, or ValueError, by version.
            return describe(error)
        return ""


def import_problem(path: str) -> str:
    """Return why a class or a function cannot be imported here; empty if it can."""
    module, _, name = path.rpartition(".")
    try:
        found = import_module(module)
    except BaseException as error:  # noqa: BLE001  A module of the user's can raise anything, also SystemExit.
        return describe(error)
    return "" if hasattr(found, name) else f"module {module} has no {name}"


def local_settings_file() -> str:
    """Return the file of ``airflow_local_settings``, imported by Airflow at its start; empty if there is none."""
    return str(getattr(sys.modules.get("airflow_local_settings"), "__file__", "") or "")
