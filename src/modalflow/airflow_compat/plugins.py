"""Airflow's plugins, loaded as a task process loads them in every supported version.

Cheap to import: functions import Airflow's own modules at their use.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from traceback import extract_tb
from typing import Any

from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS
from modalflow.support.described import describe

#: Part of the names of the loggers of Airflow's modules that load plugins.
_MANAGER = "plugins_manager"


def load_plugins() -> dict[str, str]:
    """Load all plugins, with their macros and listeners; return the errors of failing ones, with the type and the line.

    The key is a file, a module or a plugin's name. A second call loads nothing again. Raises a plugin's SystemExit, as
    Airflow does.
    """
    manager = _manager()
    with _logged_errors() as logged:
        manager.integrate_macros_plugins()
        _listeners().get_listener_manager()
    errors = dict(manager._get_plugins()[1] if AIRFLOW_V_3_2_PLUS else manager.import_errors)
    return {name: _described(name, text, logged) for name, text in errors.items()}


def loaded_plugins() -> list[str]:
    """Return the names of the plugins that ``load_plugins`` could load, sorted."""
    manager = _manager()
    found = manager._get_plugins()[0] if AIRFLOW_V_3_2_PLUS else manager.plugins
    return sorted(str(plugin.name) for plugin in found or ())


def unload_plugins() -> None:
    """Make the next use of plugins load them again, as in a new process."""
    manager, listeners = _manager(), _listeners()
    if AIRFLOW_V_3_2_PLUS:
        for cached in (manager._get_plugins, manager.integrate_macros_plugins, listeners.get_listener_manager):
            cached.cache_clear()
        return
    manager.loaded_plugins.clear()
    manager.import_errors.clear()
    manager.plugins = manager.macros_modules = None
    listeners._listener_manager = None


@contextmanager
def _logged_errors() -> Iterator[list[BaseException]]:
    """Collect the exceptions that Airflow logs: it keeps only their texts, without a type."""
    errors: list[BaseException] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.exc_info and record.exc_info[1] is not None:
                errors.append(record.exc_info[1])

    collector = Collector(logging.ERROR)
    loggers = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if _MANAGER in name]
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield errors
    finally:
        for logger in loggers:
            logger.removeHandler(collector)


def _described(name: str, text: str, logged: Iterable[BaseException]) -> str:
    """Return a plugin's error with its type, and with the line of the plugin's file or of the file that raised."""
    error = next((each for each in logged if str(each) == text), None)
    if error is None:
        return text
    frames = extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == name] or frames
    # A SyntaxError has its own line in its text.
    place = f" ({Path(own[-1].filename).name}:{own[-1].lineno})" if own and not isinstance(error, SyntaxError) else ""
    return f"{describe(error)}{place}"


def _listeners() -> Any:
    return import_module("airflow.sdk.listener" if AIRFLOW_V_3_2_PLUS else "airflow.listeners.listener")


def _manager() -> Any:
    return import_module(f"{'airflow.sdk' if AIRFLOW_V_3_2_PLUS else 'airflow'}.{_MANAGER}")
