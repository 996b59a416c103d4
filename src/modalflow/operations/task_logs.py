"""A task's log on the logs Volume: found by DAG, task and run, and read as it grows.

Only reads. The result of a try's function call shows its end, and Modal keeps it for days.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import modal
from modal import exception

from modalflow.errors import ModalflowError
from modalflow.logs.log_volume import LogVolume
from modalflow.names import MAP_INDEX, TRY_LOG, log_writer, stored_log_path, task_log_folder, try_log
from modalflow.operations.inventory import RUNNING, take_inventory
from modalflow.operations.log_lines import in_order_of_time
from modalflow.operations.site import PATIENCE, Site, within
from modalflow.operations.targets import NothingMatchesError, Target, nearest
from modalflow.protocol.snapshot import SUBMITTED
from modalflow.support.text import ID, from_json, one_line

#: The state of a task without a trace, among those of ``_under_way``.
_NOT_QUEUED = "not queued"

#: The beginning of a function call's first line, which has the call's id.
_STARTED = "Started on Modal"

_MISSING = (exception.NotFoundError, FileNotFoundError)

#: States from Airflow's supervisor for a try that continues in another function call.
_GOES_ON = frozenset({"deferred", "up_for_reschedule", "awaiting_input", "running"})


#: Seconds to wait for a task without a trace on Modal: Airflow may not have queued it yet.
QUEUED_WITHIN = 60.0


class NoLogYetError(ModalflowError):
    """The task is known, and has written nothing yet."""


class NoTraceError(NothingMatchesError):
    """The try has neither a log nor work on Modal. Airflow may queue it later."""


@dataclass(frozen=True)
class Outcome:
    """How a try ended, as far as Modal knows."""

    ending: str


@dataclass
class TaskLog:
    """The log of one try: a folder on the Volume, with files of its function calls, its triggers and the executor."""

    site: Site
    folder: str
    _offsets: dict[str, int] = field(default_factory=dict)
    _seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    _latest: dict[str, float] = field(default_factory=dict)
    _function_call_id: str = ""

    def new_lines(self, *, whole: bool = False) -> list[str]:
        """Return the lines since the last call, by time. ``whole`` includes an unfinished last line."""
        volume = self._volume()
        added: list[tuple[str, list[str]]] = []
        for file in sorted(_files(volume, self.folder), key=lambda file: str(file.path)):
            mark = (file.size, file.mtime)
            if self._seen.get(file.path) == mark and not whole:
                continue
            content = within(PATIENCE, lambda path=file.path: b"".join(volume.read_file(path)))  # type: ignore[misc]
            self._seen[file.path] = mark
            start = self._offsets.get(file.path, 0)
            end = len(content) if whole else content.rfind(b"\n") + 1
            if end > start:
                text = content[start:end].decode("utf-8", "backslashreplace")
                added.append((log_writer(file.path), text.removesuffix("\n").split("\n")))
                self._offsets[file.path] = end
        lines = in_order_of_time(added, self._latest)
        for line in lines:
            self._note(line)
        return lines

    def outcome(self) -> Outcome | None:
        """Return the end of the last function call; None while the try continues."""
        if not self._function_call_id:
            return None
        call: Any = modal.FunctionCall.from_id(self._function_call_id, client=self.site.control_plane.client)
        try:
            returned = within(PATIENCE, lambda: call.get(timeout=0))
        except exception.OutputExpiredError:
            return Outcome("ended some days ago")
        except TimeoutError:
            return None
        except exception.Error as error:
            return Outcome(f"ended: {one_line(error)}")
        if not isinstance(returned, dict) or returned.get("final_state") in _GOES_ON:
            return None
        state = returned.get("final_state") or returned.get("state")
        return Outcome(f"ended: {one_line(state, ID)}")

    def _note(self, line: str) -> None:
        if _STARTED not in line:
            return
        try:
            entry = from_json(line)
        except ValueError:
            return
        if isinstance(entry, dict) and str(entry.get("event")).startswith(_STARTED):
            self._function_call_id = one_line(entry.get("function_call_id") or "", ID)

    def _volume(self) -> Any:
        return LogVolume(self.site.control_plane, self.site.names, create=False).volume


def _files(volume: Any, folder: str) -> list[Any]:
    try:
        found = within(PATIENCE, lambda: volume.listdir(folder))
    except _MISSING:
        return []
    return [file for file in found if file.type.name == "FILE"]


def find(site: Site, target: Target) -> TaskLog:
    """Return the log of a try, by default the newest. NoLogYetError or NothingMatchesError name the alternatives."""
    index = -1 if target.map_index is None else target.map_index
    folder = stored_log_path(task_log_folder(target.dag_id, target.task_id, target.run_id, index))
    names = _names(site, folder)
    tries = _numbers(TRY_LOG, names)
    if target.try_number in tries or (target.try_number is None and tries):
        return TaskLog(site, f"{folder}/{try_log(target.try_number or tries[-1])}")
    indexes = _numbers(MAP_INDEX, names)
    if indexes and target.map_index is None:
        raise NothingMatchesError(f"{target.label} is mapped: name one with --map-index ({_listed(indexes)}).")
    if waiting := _under_way(site, target):
        raise NoLogYetError(waiting)
    if tries:
        raise NoTraceError(f"{target.label} has no log. Tries with a log: {_listed(tries)}.")
    raise NoTraceError(_nearest(site, target))


def _under_way(site: Site, target: Target) -> str:
    """Return the state of a task without a log; empty if it is unknown."""
    for work in take_inventory(site, profiles=False).work():
        if not target.matches(work):
            continue
        since = f"{time.time() - work.since:.0f} s"
        if work.state == RUNNING:
            return f"{work.label} has run for {since} in container {work.container_id}, without a published log yet."
        if work.state == SUBMITTED:
            return f"{work.label} was submitted {since} ago as {work.function_call_id}, and waits for a container."
        return f"Modal has not accepted {work.label} yet, for {since}: see `modalflow status`."
    return ""


def _run_goes_on(site: Site, target: Target) -> bool:
    """Return whether Modal has work of the same DAG run."""
    run = (target.dag_id, target.run_id)
    tasks = (work.task for work in take_inventory(site, profiles=False).work())
    return any(task is not None and (task.dag_id, task.run_id) == run for task in tasks)


def _nearest(site: Site, target: Target) -> str:
    """Return the nearest existing log, from the outermost missing folder on."""
    where, dag = f"on Volume {site.names.logs}", f"dag_id={target.dag_id}"
    for parent, prefix, wanted, kind in (
        ("/", "dag_id=", target.dag_id, "DAGs"),
        (dag, "run_id=", target.run_id, f"runs of {target.dag_id}"),
        (f"{dag}/run_id={target.run_id}", "task_id=", target.task_id, "tasks of this run"),
    ):
        names = _names(site, parent if parent == "/" else stored_log_path(parent))
        there = [name.removeprefix(prefix) for name in names if name.startswith(prefix)]
        if stored_log_path(f"{prefix}{wanted}").removeprefix(prefix) not in there:
            near = nearest(wanted, there) or sorted(there)[-3:]
            hint = f" Nearest {kind} with a log: {', '.join(near)}." if near else ""
            return f"There is no log of {target.label} {where}.{hint}"
    return f"There is no log of {target.label} {where}."


def _names(site: Site, folder: str) -> list[str]:
    volume = LogVolume(site.control_plane, site.names, create=False).volume
    try:
        found: list[Any] = within(PATIENCE, lambda: volume.listdir(folder))
    except _MISSING:
        return []
    return [str(each.path).rstrip("/").rpartition("/")[2] for each in found]


def _numbers(pattern: re.Pattern[str], names: Iterable[str]) -> list[int]:
    """Return the numbers in matching names. A container can put other names on the Volume."""
    return sorted(int(found[1]) for name in names if (found := pattern.fullmatch(name)))


def _listed(numbers: list[int]) -> str:
    shown = ", ".join(str(number) for number in numbers[:10])
    return f"{shown} … {numbers[-1]}" if len(numbers) > 10 else shown


def follow(
    site: Site, target: Target, *, pause: float = 1.0, patience: float = QUEUED_WITHIN
) -> Iterator[str | Outcome | NoLogYetError]:
    """Yield lines until the try has ended; before the first line, yield each new state of the task.

    A try without any trace gets ``patience`` seconds after the last moment with work of its run on Modal.
    """
    last_state = ""
    give_up = time.monotonic() + patience
    while True:
        try:
            log = find(site, target)
            break
        except NoTraceError:
            if _run_goes_on(site, target):
                give_up = time.monotonic() + patience
            elif time.monotonic() >= give_up:
                raise
            if last_state != _NOT_QUEUED:
                last_state = _NOT_QUEUED
                yield NoLogYetError(
                    f"{target.label} has no log yet: waiting up to {patience:g} s for Airflow to queue it."
                )
        except NoLogYetError as error:
            give_up = time.monotonic() + patience
            # Without the seconds, because they always change.
            state = str(error).partition(" since ")[0].partition(" ago ")[0].rpartition(" ")[0]
            if state != last_state:
                last_state = state
                yield error
        time.sleep(pause)
    while True:
        yield from log.new_lines()
        if (outcome := log.outcome()) is not None:
            yield from log.new_lines(whole=True)
            yield outcome
            return
        time.sleep(pause)
