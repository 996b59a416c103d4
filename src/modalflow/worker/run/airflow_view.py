"""The configuration of Airflow in a container, for a probe: options, the classes they name, plugins, packages.

Plain data. Holds no value of an option that the question calls secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from modalflow.airflow_compat import effective
from modalflow.airflow_home.classes import CLASS_OPTIONS, NAMING_OPTIONS, classes_of
from modalflow.protocol.probe import HIDDEN, Question, WantedOption, digest, shown
from modalflow.support.described import describe
from modalflow.support.packages import installed_packages

#: Characters of an error.
_ERROR = 500
#: The most entries of a list. An answer is one message.
_MOST = 500


def steps(question: Question) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the parts of the view: name, and the function that inspects it. The last ones import the user's code."""
    yield "packages", installed_packages
    yield "options", lambda: [_option(wanted, question.salt) for wanted in question.options]
    yield "classes", lambda: list(_classes(question))
    yield "plugins", _plugins


def inspected(step: Callable[[], Any]) -> Any:
    """Return the result of a step, or its error."""
    try:
        return step()
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"error": describe(error)[:_ERROR]}


def _option(wanted: WantedOption, salt: str) -> dict[str, Any]:
    found = effective.effective(wanted.section, wanted.option)
    value = found.value
    problem = found.problem[:_ERROR]
    if wanted.secret and value:
        problem = problem.replace(value, HIDDEN)
    return {
        "section": wanted.section,
        "option": wanted.option,
        "digest": None if value is None else digest(value, salt),
        "shown": None if value is None else shown(value, wanted.secret),
        "origin": found.origin,
        "known": found.known,
        "problem": problem,
    }


def _classes(question: Question) -> Iterator[dict[str, str]]:
    """Yield the classes that the configuration names, if it is not Airflow's default, each with its problem."""
    wanted = {(wanted.section, wanted.option) for wanted in question.options}
    for section, option in NAMING_OPTIONS:
        found = effective.effective(section, option)
        if found.value and (found.origin != effective.DEFAULT or (section, option) in wanted):
            for path in classes_of(section, option, found.value)[:_MOST]:
                problem = _import_problem(section, option, path)
                yield {"section": section, "option": option, "path": path, "problem": problem[:_ERROR]}


def _import_problem(section: str, option: str, path: str) -> str:
    # Airflow has imported its own at its start, and refuses to start without it.
    return "" if path.startswith("airflow.") and (section, option) in CLASS_OPTIONS else effective.import_problem(path)


def _plugins() -> dict[str, Any]:
    loaded, errors = effective.plugins()
    return {
        "loaded": loaded[:_MOST],
        "errors": {name: error[:_ERROR] for name, error in list(errors.items())[:_MOST]},
        "local_settings": effective.local_settings_file(),
    }
