"""Why a task's DAG was not there when its task started, for the task's log.

Airflow logs "Dag not found during start up" for a file that is not on the worker, a module that is not in the image, an
import that takes too long, and a file that defines other DAGs. Pure, except that it lists the bundle's folder.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from modalflow.support.text import one_line

#: The longest traceback that is repeated: its end, where the exception is.
_LONGEST_TRACEBACK = 4000
#: Characters of either end of an error that are searched.
_LONGEST_END = 16_000
#: DAGs, tasks or files that are named; the others are counted.
_NAMED = 10
#: Files that are looked through for one of the same name.
_MOST_FILES = 10_000

#: Frames of Airflow and of Python's import system lead to the DAG file and explain nothing.
_THEIRS = re.compile(
    r'^ {2}File "(?:<frozen [\w.]+>|[^"]*/airflow/(?:dag_processing|models/dagbag|utils/timeout|sdk/execution_time)'
    r'[^"]*|[^"]*/modalflow/worker/[^"]*)", line \d+'
)
_MODULE = re.compile(r"No module named '([^']+)'")
_NAME = re.compile(r"cannot import name '([^']+)' from '([^']+)'")
_TOO_SLOW = re.compile(r"DagBag import timeout for .*? after ([\d.]+)s", re.S)
_SYNTAX = re.compile(r"^(?:SyntaxError|IndentationError|TabError)\b|\binvalid syntax\b", re.M)
#: What ends a process instead of raising an error.
_ENDED = re.compile(r"^(?:SystemExit|KeyboardInterrupt)\b", re.M)


@dataclass(frozen=True)
class Looked:
    """What Airflow looked for, and what it found."""

    dag_id: str
    task_id: str
    bundle: str
    version: str | None
    folder: Path
    """Where the bundle is in this container."""
    file: Path
    """The DAG file, absolute."""
    dags: Mapping[str, Collection[str]]
    """The DAGs that the file defines, and their tasks."""
    errors: Mapping[str, str]
    """Airflow's import errors: file → traceback, or the message alone."""


def why_missing(looked: Looked) -> str:
    """Return the reason and what to do, then the traceback of a failed import without the frames of Airflow."""
    if error := next(iter(looked.errors.values()), ""):
        return _of_an_import(looked, _shortened(error.strip()))
    if not looked.file.exists():
        return _of_a_file(looked)
    if looked.dag_id in looked.dags:
        tasks = looked.dags[looked.dag_id]
        return (
            f"{looked.file} defines DAG {looked.dag_id!r} without task {looked.task_id!r} here; its tasks are: "
            f"{_listed(tasks)}. {_ELSEWHERE}"
        )
    if looked.dags:
        return f"{looked.file} defines no DAG {looked.dag_id!r} here, but: {_listed(looked.dags)}. {_ELSEWHERE}"
    return f"{looked.file} was imported and defines no DAG at all here. {_ELSEWHERE}"


_ELSEWHERE = (
    "Either the file has changed since Airflow's DAG processor read it, or what it makes depends on something that is "
    "not the same in the container: a variable, another file, the time, a Variable of Airflow. Bring the current files "
    "with `modalflow deploy` or `modalflow sync`."
)


def why_no_bundle(bundle: str, version: str | None, configured: Collection[str], said: str) -> str:
    """Return the reason why the bundle of a task cannot be opened."""
    of = f", version {version}," if version else ""
    if configured and bundle not in configured:
        return (
            f"DAG bundle {bundle!r} is not configured in this container; configured are: {_listed(configured)}. The "
            "scheduler's [dag_processor] dag_bundle_config_list goes to containers: restart the scheduler after a "
            "change, and do not set it in the image or in [modal_executor] worker_env."
        )
    return (
        f"DAG bundle {bundle!r}{of} cannot be opened in this container: {said}. Check that its class and what it needs "
        "(git, credentials, network) are in the worker's image; `modalflow doctor` tries each bundle from inside a "
        "container."
    )


def _of_an_import(looked: Looked, error: str) -> str:
    shown = _without_their_frames(error)
    last = one_line(shown.splitlines()[-1] if shown else error)
    if (slow := _TOO_SLOW.search(error)) is not None:
        said = (
            f"{looked.file} took longer to import than [core] dagbag_import_timeout allows ({slow[1]} s). A new "
            "container reads everything for the first time: do less at the top level of the file, name what it imports "
            "in the profile's `preload`, or set AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT in [modal_executor] worker_env."
        )
    elif modules := list(dict.fromkeys(map(one_line, _MODULE.findall(error))))[:_NAMED]:
        # Several where one was to replace another: `except ImportError: import …`.
        what = "a module" if len(modules) == 1 else "modules"
        named = ", ".join(map(repr, modules))
        said = f"{looked.file} imports {what} that this container does not have: {named}. {_INSTALL}"
    elif (name := _NAME.search(error)) is not None:
        what, where = map(one_line, name.groups())
        said = (
            f"{looked.file} imports {what!r} from {where!r}, which this container has in another version, or as "
            f"another file of that name. {_INSTALL}"
        )
    elif _SYNTAX.search(error):
        said = (
            f"{looked.file} is not valid for this container's Python: {last}. Fix the file, or deploy the worker with "
            "the Python version that the DAG is written for."
        )
    elif _ENDED.search(error):
        said = f"{looked.file} ends the process at its import ({last}). Do not call exit() at the top level of a file."
    else:
        said = (
            f"{looked.file} fails when it is imported in this container: {last}. It may read a variable, a file or a "
            "service that only the Airflow host has."
        )
    return f"{said}\n{shown[-_LONGEST_TRACEBACK:]}" if "\n" in shown else said


def _shortened(error: str) -> str:
    """Return both ends of a long error: it is the user's, of any length, and a search of it may take quadratic time."""
    return error if len(error) <= 2 * _LONGEST_END else f"{error[:_LONGEST_END]} … {error[-_LONGEST_END:]}"


_INSTALL = (
    "If it is a package, add it to the worker's requirements and deploy again (`modalflow deploy`). If it is a file of "
    "yours, keep it inside the DAG bundle: files in $AIRFLOW_HOME/plugins or elsewhere on the Airflow host are not in "
    "containers unless the image has them."
)


def _of_a_file(looked: Looked) -> str:
    which = f"DAG bundle {looked.bundle!r}" + (f", version {looked.version}," if looked.version else "")
    if not looked.folder.is_dir():
        return (
            f"{which} has no folder {looked.folder} in this container. If it is a mount of the profile or of the task, "
            "check its path; otherwise bring it with `modalflow deploy` or `modalflow sync`."
        )
    files = sorted(islice(_python_files(looked.folder), _MOST_FILES))
    if not files:
        return (
            f"{which} is an empty folder in this container: {looked.folder} has no Python file. If it is a mount of a "
            "Volume or a bucket, check that it has the files under that path; otherwise bring them with `modalflow "
            "deploy` or `modalflow sync`."
        )
    wanted = looked.file.relative_to(looked.folder) if looked.file.is_relative_to(looked.folder) else looked.file
    same = [file for file in files if Path(file).name == looked.file.name]
    elsewhere = f" One is at {same[0]}: is the bundle's folder the one that the scheduler has?" if same else ""
    return (
        f"{which} has no file {wanted} in this container; {looked.folder} has {len(files)} Python files: "
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
    told = ", ".join(sorted(names)[:_NAMED])
    more = len(names) - _NAMED
    return f"{told} and {more} more" if more > 0 else told or "none"


def _without_their_frames(traceback: str) -> str:
    """A traceback without the frames that lead to the DAG file."""
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
