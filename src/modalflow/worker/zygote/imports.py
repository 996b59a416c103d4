"""The result of a zygote's imports, of Airflow and of the operator's code, in words for a task's log.

The operator's code is local settings, plugins, and modules named by settings. It runs as under LocalExecutor: a failing
plugin is reported, and the others work; any other failure ends every task.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from traceback import extract_tb

from modalflow.names import HOME_MODULES
from modalflow.support.described import chain, describe
from modalflow.worker.zygote.protocol import ImportReport
from modalflow.worker.zygote.variables_read import VariablesRead

log = logging.getLogger(__name__)

#: Airflow's own words for an unreadable setting, with the value at the end.
_NAMED = re.compile(
    r'"(?P<option>\w+)" key in "(?P<section>[\w.]+)" section\. Current value: "(?P<value>.*)"', re.DOTALL
)
_SECRET = re.compile(r"password|passwd|secret|token|key|kwargs|dsn|conn|credential", re.IGNORECASE)
#: Options with the name of a class, in spite of their own names.
_CLASSES = frozenset({"secrets_backend", "secret_mask_adapter"})

#: Airflow's secrets backends search these variables first. Other connections and variables come from Airflow's API, for
#: which only a task has a token.
_SECRET_VARIABLES = ("AIRFLOW_CONN_", "AIRFLOW_VAR_")

_FIX = (
    "If a module or package is missing here, add it to the worker's image and deploy: `modalflow deploy`. Otherwise "
    "correct it on the Airflow host, and restart the scheduler."
)


@dataclass(frozen=True)
class Imported:
    """The result of a zygote's imports."""

    problem: str = ""
    """Why no workload can run; empty if all can."""
    report: ImportReport = field(default_factory=ImportReport)
    airflow: bool = False
    """Whether Airflow is imported."""
    obstacle: str = ""
    """What a plugin does at its import that only a task can do; empty for nothing."""


def explain(error: BaseException, environ: os._Environ[str] | dict[str, str]) -> str:
    """Return why Airflow cannot be imported: the setting or the file, its error, and how to fix it."""
    return _explained("Airflow cannot be imported in the container", error, environ.get("AIRFLOW_HOME", ""))


def refused_setting(error: BaseException) -> str:
    """Return the reason of a failure because of a setting."""
    return _explained("Airflow in the container does not accept a setting", error, os.environ.get("AIRFLOW_HOME", ""))


def load_plugins(read: VariablesRead) -> Imported:
    """Load the plugins for all tasks, and record the variables they read. Never raises: a failing plugin is a note.

    If one fails, each task tries again: some can only be loaded by a task.
    """
    from modalflow.airflow_compat import plugins

    threads, known = threading.active_count(), set(read.names)
    with read.everything():
        try:
            errors = plugins.load_plugins()
        except (Exception, SystemExit) as error:
            log.exception("The plugins cannot be loaded")
            errors = {"": describe(error)}
    obstacle = ""
    if threading.active_count() > threads:
        obstacle = "starts a thread"
    elif any(name.startswith(_SECRET_VARIABLES) for name in read.names - known):
        obstacle = "reads a connection or a variable of Airflow"
    if errors:
        plugins.unload_plugins()
    home = os.environ.get("AIRFLOW_HOME", "")
    notes = tuple(_note(_relative(name, home), error) for name, error in errors.items())
    return Imported(report=ImportReport(notes), obstacle=obstacle)


def _explained(what: str, error: BaseException, home: str) -> str:
    place = _place(error, home)
    where = f" ({place})" if place else ""
    # Airflow raises an error with the setting's value, and only its context has the error of the class.
    return f"{what}{where}: {_masked(describe(error, with_context=True))}. {_fix(error, place)}"


def _fix(error: BaseException, place: str) -> str:
    """Return how to fix it. A module of the host may lack another one that its source does not name."""
    missing = next((each.name for each in chain(error) if isinstance(each, ModuleNotFoundError) and each.name), "")
    file = place.partition(",")[0].removeprefix(f"{HOME_MODULES}/")
    if not missing or not place.startswith(f"{HOME_MODULES}/"):
        return _FIX
    return (
        f"If {missing} is a module of the Airflow host, as {file} is: an import must be visible in the source, so "
        "write an `import` statement, or put both into a package. Then restart the scheduler. If it is a package, "
        "add it to the worker's image and deploy: `modalflow deploy`."
    )


def _note(plugin: str, error: str) -> str:
    which = f"The plugin {plugin}" if plugin else "A plugin"
    again = "Each task tries again, and goes on without it if that fails."
    return f"{which} could not be loaded in the container: {_masked(error)}. {again} {_FIX}"


def _place(error: BaseException, home: str) -> str:
    """Return the file of the home, and the line, of a failed import; empty if it is none of the home's."""
    return next((place for each in chain(error) if (place := _place_of(each, home))), "")


def _place_of(error: BaseException, home: str) -> str:
    folder = Path(home) if home else None
    found = ""
    for frame in extract_tb(error.__traceback__):
        if folder is not None and Path(frame.filename).is_relative_to(folder):
            found = f"{_relative(frame.filename, home)}, line {frame.lineno}"
    if not found and isinstance(error, SyntaxError) and error.filename:
        return f"{_relative(error.filename, home)}, line {error.lineno}"
    return found


def _relative(path: str, home: str) -> str:
    return path.removeprefix(f"{home}/") if home else path


def _masked(text: str) -> str:
    """Return a text of Airflow's without secret values of settings, and without a full stop."""

    def masked(found: re.Match[str]) -> str:
        value = found["value"]
        if found["option"].lower() not in _CLASSES and _SECRET.search(found["option"]):
            value = "***"
        return f'"{found["option"]}" key in "{found["section"]}" section. Current value: "{value}"'

    return _NAMED.sub(masked, text).rstrip(".")
