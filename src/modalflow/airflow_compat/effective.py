"""The configuration that holds in this process's Airflow, and whether Airflow accepts it: values, classes, plugins.

For `modalflow doctor`, in a container. Changes nothing except that it imports what the configuration names.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Mapping
from configparser import ConfigParser
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS
from modalflow.names import airflow_variable
from modalflow.support.described import describe

#: Where a value comes from.
VARIABLE, FILE, DEFAULT, NOWHERE = "variable", "file", "default", "nowhere"

_SUFFIXES = ("", "_CMD", "_SECRET")
#: The type of an option in Airflow's description → the method that reads it.
_READERS = {"integer": "getint", "float": "getfloat", "boolean": "getboolean"}


@dataclass(frozen=True)
class Effective:
    """An option as this Airflow has it."""

    value: str | None = field(repr=False)
    """None if it is neither set nor has a default."""
    origin: str
    known: bool
    """Whether this Airflow or one of its providers describes the option."""
    problem: str = ""
    """Airflow's reason to refuse the value. It can contain the value."""


def effective(section: str, option: str) -> Effective:
    """Return an option's value, where it comes from, and whether Airflow can read it."""
    conf: Any = own_conf()
    described = _descriptions().get(section, {}).get("options", {}).get(option)
    with warnings.catch_warnings():
        # A renamed option is a warning of its own for the user's command, not a finding.
        warnings.simplefilter("ignore")
        try:
            value = conf.get(section, option, fallback=None)
        except Exception as error:  # noqa: BLE001  A command or a secrets backend of the user's can raise anything.
            return Effective(None, _origin(conf, section, option), described is not None, describe(error))
        problem = "" if value in (None, "") else _refusal(conf, section, option, str((described or {}).get("type")))
    text = None if value is None else str(value)
    origin = NOWHERE if text is None else _origin(conf, section, option)
    return Effective(text, origin, described is not None, problem)


def import_problem(path: str) -> str:
    """Return why a class or a function cannot be imported here; empty if it can."""
    from importlib import import_module

    module, _, name = path.rpartition(".")
    try:
        found = import_module(module)
    except BaseException as error:  # noqa: BLE001  A module of the user's can raise anything, also SystemExit.
        return describe(error)
    return "" if hasattr(found, name) else f"module {module} has no {name}"


def plugins() -> tuple[list[str], dict[str, str]]:
    """Return the names of the plugins that tasks have here, and those that failed: file or module → error."""
    if AIRFLOW_V_3_2_PLUS:
        from airflow.sdk import plugins_manager

        loaded, errors = plugins_manager._get_plugins()
    else:
        from airflow import plugins_manager as older

        manager: Any = older
        manager.ensure_plugins_loaded()
        loaded, errors = manager.plugins or [], manager.import_errors
    return sorted(str(plugin.name) for plugin in loaded), {str(name): str(error) for name, error in errors.items()}


def local_settings_file() -> str:
    """Return the file of ``airflow_local_settings`` that Airflow has imported at its start; empty if there is none."""
    return str(getattr(sys.modules.get("airflow_local_settings"), "__file__", "") or "")


def _refusal(conf: Any, section: str, option: str, kind: str) -> str:
    if (reader := _READERS.get(kind)) is None:
        return ""
    try:
        getattr(conf, reader)(section, option)
    except Exception as error:  # noqa: BLE001  Airflow's own class, or ValueError, by version.
        return describe(error)
    return ""


def _origin(conf: Any, section: str, option: str) -> str:
    variable = airflow_variable(section, option)
    if any(f"{variable}{suffix}" in os.environ for suffix in _SUFFIXES):
        return VARIABLE
    # Airflow's own has_option includes defaults.
    in_file = any(ConfigParser.has_option(conf, section, f"{option}{suffix.lower()}") for suffix in _SUFFIXES)
    return FILE if in_file else DEFAULT


@cache
def _descriptions() -> Mapping[str, Any]:
    from airflow.configuration import retrieve_configuration_description

    found: Mapping[str, Any] = retrieve_configuration_description()
    return found
