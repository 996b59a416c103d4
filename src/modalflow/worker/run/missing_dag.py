"""The reason why a task's DAG was missing when the task started, for the task's log.

Airflow logs "Dag not found during start up" for several problems: a file that is not on the worker, a module that is
not in the image, an import that takes too long, a file that defines other DAGs. Does no I/O except to list the files of
the bundle.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modalflow.support.text import one_line

#: Characters of a traceback that are repeated, from its end, which has the exception.
_LONGEST_TRACEBACK = 4000
#: Characters of either end of an error that are searched.
_LONGEST_END = 16_000
#: DAGs, tasks or files that are named; the others are counted.
_NAMED = 10
#: The most files that are searched for one of the same name.
_MOST_FILES = 10_000

#: Frames of Airflow and of Python's import system, which lead to the DAG file and explain nothing.
_THEIRS = re.compile(
    r'^ {2}File "(?:<frozen [\w.]+>|[^"]*/airflow/(?:dag_processing|models/dagbag|utils/timeout|sdk/execution_time)'
    r'[^"]*|[^"]*/modalflow/worker/[^"]*)", line \d+'
)
_MODULE = re.compile(r"No module named '([^']+)'")
_NAME = re.compile(r"cannot import name '([^']+)' from '([^']+)'")
_TOO_SLOW = re.compile(r"DagBag import timeout for .*? after ([\d.]+)s", re.S)
_SYNTAX = re.compile(r"^(?:SyntaxError|IndentationError|TabError)\b|\binvalid syntax\b", re.M)
#: Exceptions that end a process instead of reporting an error.
_ENDED = re.compile(r"^(?:SystemExit|KeyboardInterrupt)\b", re.M)


@dataclass(frozen=True)
class DagSearch:
    """What Airflow searched for, and what it found."""

    dag_id: str
    task_id: str
    bundle: str
    version: str | None
    folder: Path
    """The folder of the bundle in this container."""
    file: Path
    """The DAG file, absolute."""
    dags: Mapping[str, Collection[str]]
    """The DAGs that the file defines, and their tasks."""
    errors: Mapping[str, str]
    """Airflow's import errors: file → traceback, or the message alone."""


def why_missing(search: DagSearch) -> str:
    """Return the reason and what to do, then the traceback of a failed import without the frames of Airflow."""
    if error := next(iter(search.errors.values()), ""):
        return _import_failed(search, _shortened(error.strip()))
    if not search.file.exists():
        return _file_missing(search)
    if search.dag_id in search.dags:
        tasks = search.dags[search.dag_id]
        return (
            f"{search.file} defines DAG {search.dag_id!r} without task {search.task_id!r} here; its tasks are: "
            f"{_listed(tasks)}. {_ELSEWHERE}"
        )
    if search.dags:
        return f"{search.file} defines no DAG {search.dag_id!r} here, but: {_listed(search.dags)}. {_ELSEWHERE}"
    return f"{search.file} was imported and defines no DAG at all here. {_ELSEWHERE}"


_ELSEWHERE = (
    "Either the file has changed since Airflow's DAG processor read it, or its DAGs depend on something that differs "
    "in the container: an environment variable, another file, the time, a Variable of Airflow. Bring the current files "
    "with `modalflow deploy` or `modalflow sync`."
)


def why_no_bundle(bundle: str, version: str | None, configured: Collection[str], problem: str) -> str:
    """Return the reason why the bundle of a task cannot be opened; ``problem`` is Airflow's."""
    of = f", version {version}," if version else ""
    if configured and bundle not in configured:
        return (
            f"DAG bundle {bundle!r} is not configured in this container; configured are: {_listed(configured)}. The "
            "scheduler's [dag_processor] dag_bundle_config_list goes to containers: restart the scheduler after a "
            "change, and do not set it in the image or in [modal_executor] worker_env."
        )
    return (
        f"DAG bundle {bundle!r}{of} cannot be opened in this container: {problem}. Check that its class and what it "
        "needs (git, credentials, network) are in the worker's image; `modalflow doctor` tries each bundle from inside "
        "a container."
    )


def _import_failed(search: DagSearch, error: str) -> str:
    shown = _without_their_frames(error)
    last = one_line(shown.splitlines()[-1] if shown else error)
    if (slow := _TOO_SLOW.search(error)) is not None:
        reason = (
            f"{search.file} took longer to import than [core] dagbag_import_timeout allows ({slow[1]} s). A new "
            "container reads everything for the first time: do less at the top level of the file, name what it imports "
            "in the profile's `preload`, or set AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT in [modal_executor] worker_env."
        )
    elif modules := list(dict.fromkeys(map(one_line, _MODULE.findall(error))))[:_NAMED]:
        # Several if one was to replace another: `except ImportError: import …`.
        what = "a module" if len(modules) == 1 else "modules"
        named = ", ".join(map(repr, modules))
        reason = f"{search.file} imports {what} that this container does not have: {named}. {_INSTALL}"
    elif (name := _NAME.search(error)) is not None:
        what, where = map(one_line, name.groups())
        reason = (
            f"{search.file} imports {what!r} from {where!r}, which this container has in another version, or as "
            f"another file of that name. {_INSTALL}"
        )
    elif _SYNTAX.search(error):
        reason = (
            f"{search.file} is not valid for this container's Python: {last}. Fix the file, or deploy the worker with "
            "the Python version that the DAG is written for."
        )
    elif _ENDED.search(error):
        reason = (
            f"{search.file} ends the process at its import ({last}). Do not call exit() at the top level of a file."
        )
    else:
        reason = (
            f"{search.file} fails when it is imported in this container: {last}. It may read a variable, a file or a "
            "service that only the Airflow host has."
        )
    return f"{reason}\n{shown[-_LONGEST_TRACEBACK:]}" if "\n" in shown else reason


def _shortened(error: str) -> str:
    """Return both ends of a long error: a user's text may have any length, and a search may take quadratic time."""
    return error if len(error) <= 2 * _LONGEST_END else f"{error[:_LONGEST_END]} … {error[-_LONGEST_END:]}"


_INSTALL = (
    "If it is a package, add it to the worker's requirements and deploy again (`modalflow deploy`). If it is a file of "
    "yours, keep it inside the DAG bundle: files in $AIRFLOW_HOME/plugins or elsewhere on the Airflow host are not in "
    "containers unless the image has them."
)


def _file_missing(search: DagSearch) -> str:
    which = f"DAG bundle {search.bundle!r}" + (f", version {search.version}," if search.version else "")
    if not search.folder.is_dir():
        return (
            f"{which} has no folder {search.folder} in this container. If it is a mount of the profile or of the task, "
            "check its path; otherwise bring it with `modalflow deploy` or `modalflow sync`."
        )
    files = sorted(islice(_python_files(search.folder), _MOST_FILES))
    if not files:
        return (
            f"{which} is an empty folder in this container: {search.folder} has no Python file. If it is a mount of a "
            "Volume or a bucket, check that it has the files under that path; otherwise bring them with `modalflow "
            "deploy` or `modalflow sync`."
        )
    wanted = search.file.relative_to(search.folder) if search.file.is_relative_to(search.folder) else search.file
    same = [file for file in files if Path(file).name == search.file.name]
    elsewhere = f" One is at {same[0]}: compare the bundle's folder with the scheduler's." if same else ""
    return (
        f"{which} has no file {wanted} in this container; {search.folder} has {len(files)} Python files: "
        f"{_listed(files)}.{elsewhere} Bring the current files with `modalflow deploy` or `modalflow sync`, and check "
        "that no ignore file leaves it out."
    )


def _python_files(folder: Path) -> list[str]:
    found = []
    for root, _, names in os.walk(folder):
        inside = Path(root).relative_to(folder)
        found += [str(inside / name) for name in names if name.endswith((".py", ".zip"))]
        if len(found) > _MOST_FILES:
            break
    return found


def _listed(names: Collection[str]) -> str:
    listed = ", ".join(sorted(names)[:_NAMED])
    more = len(names) - _NAMED
    return f"{listed} and {more} more" if more > 0 else listed or "none"


def _without_their_frames(traceback: str) -> str:
    """Return a traceback without the frames that lead to the DAG file."""
    kept: list[str] = []
    theirs = False
    for line in traceback.splitlines():
        if line.startswith('  File "'):
            theirs = bool(_THEIRS.match(line))
        elif not line.startswith("    "):
            theirs = False
        if not theirs:
            kept.append(line)
    return "\n".join(kept).strip()
