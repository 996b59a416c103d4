"""The configuration of Airflow in a container, for a probe: options, the classes they name, plugins, packages.

Plain data. Holds no value of an option that the question calls secret.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

from modalflow.airflow_compat import effective, plugins
from modalflow.airflow_home.classes import NAMING_OPTIONS, classes_of
from modalflow.protocol.probe import HIDDEN, Question, WantedOption, digest, shown
from modalflow.support.described import describe
from modalflow.support.packages import installed_packages

#: Characters of an error.
_ERROR = 500
#: The most entries of a list. An answer is one message.
_MOST = 500


def steps(question: Question) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the parts of the view: name and function. The last ones import the user's code."""
    yield "packages", installed_packages
    yield "options", lambda: [_option(wanted, question.salt) for wanted in question.options]
    yield "classes", lambda: list(_classes())
    yield "plugins", _plugins


def inspected(step: Callable[[], Any]) -> Any:
    """Return the result of a step, or its error."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"error": describe(error)[:_ERROR]}


@cache
def _options() -> effective.EffectiveOptions:
    return effective.EffectiveOptions()


def _option(wanted: WantedOption, salt: str) -> dict[str, Any]:
    found = _options().get(wanted.section, wanted.option)
    value, problem = found.value, found.problem
    if wanted.secret and value:
        problem = problem.replace(value, HIDDEN)
    return {
        "section": wanted.section,
        "option": wanted.option,
        "digest": None if value is None else digest(value, salt),
        "shown": None if value is None else shown(value, wanted.secret),
        "origin": found.origin,
        "known": found.known,
        "problem": problem[:_ERROR],
    }


def _classes() -> Iterator[dict[str, str]]:
    """Yield the classes in settings, each with the problem of its import; none of Airflow's defaults."""
    for section, option in NAMING_OPTIONS:
        found = _options().get(section, option)
        for path in classes_of(section, option, found.value or "")[:_MOST] if found.is_set else ():
            problem = effective.import_problem(path)[:_ERROR]
            yield {"section": section, "option": option, "path": path, "problem": problem}


def _plugins() -> dict[str, Any]:
    home = f"{os.environ.get('AIRFLOW_HOME', '')}/"
    errors = {name.removeprefix(home): error for name, error in plugins.load_plugins().items()}
    return {
        "loaded": plugins.loaded_plugins()[:_MOST],
        "errors": {name: error[:_ERROR] for name, error in list(errors.items())[:_MOST]},
        "local_settings": effective.local_settings_file().removeprefix(home),
    }
