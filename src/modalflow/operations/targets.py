"""Selection of work by DAG, task and run, or by an id. No I/O."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modalflow.errors import ModalflowError
from modalflow.names import TaskTry, task_label
from modalflow.operations.inventory import Work


class NothingMatchesError(ModalflowError):
    """No work matches the request."""


@dataclass(frozen=True)
class Target:
    """A user's selection of work; None stands for any value."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int | None = None
    try_number: int | None = None

    @property
    def label(self) -> str:
        index = -1 if self.map_index is None else self.map_index
        label = task_label(self.dag_id, self.task_id, self.run_id, self.try_number or "*", index)
        return label.removesuffix(" try *")

    def matches(self, work: Work) -> bool:
        """Return whether work is a selected try. Compares id by id, because joined ids of two tasks can be equal."""
        if work.task is not None:
            return self._matches_try(work.task)
        return not self.is_ambiguous and self._matches_label(work.label)

    def may_match(self, work: Work) -> bool:
        """Return whether work may be meant: its label fits, and modalflow 0.4 has recorded nothing else of it."""
        return work.task is None and self.is_ambiguous and self._matches_label(work.label)

    @property
    def is_ambiguous(self) -> bool:
        """Return whether another DAG and task have the same label: `a.b` and `c` are joined as `a` and `b.c` are."""
        return f"{self.dag_id}.{self.task_id}".count(".") > 1

    def _matches_try(self, task: TaskTry) -> bool:
        return (
            (task.dag_id, task.task_id, task.run_id) == (self.dag_id, self.task_id, self.run_id)
            and self.map_index in (None, task.map_index)
            and self.try_number in (None, task.try_number)
        )

    def _matches_label(self, label: str) -> bool:
        index = r"(\[\d+\])?" if self.map_index is None else re.escape(f"[{self.map_index}]")
        number = r"\d+" if self.try_number is None else str(self.try_number)
        task, run = re.escape(f"{self.dag_id}.{self.task_id}"), re.escape(f" run {self.run_id} try ")
        return re.fullmatch(f"{task}{index}{run}{number}", label) is not None


def matching(work: Sequence[Work], wanted: Target | str) -> list[Work]:
    """Return the work for a target or an id. NothingMatchesError names the nearest matches."""
    if isinstance(wanted, Target):
        found = [each for each in work if wanted.matches(each)]
        near = nearest(wanted.label, (each.label for each in work))
        name = wanted.label
        unsure = [each.function_call_id or each.work_id for each in work if wanted.may_match(each)]
        if unsure and not found:
            raise NothingMatchesError(
                f"{name!r} may be another task of the same name: modalflow 0.4 recorded it, and joined DAG and task "
                f"with a dot. Use its id instead: {' or '.join(unsure)}."
            )
    else:
        # Work not yet accepted by Modal has no function call id, and an empty text must not select all of it.
        found = [each for each in work if wanted and wanted in (each.work_id, each.function_call_id)]
        near = nearest(wanted, (id_ for each in work for id_ in (each.work_id, each.function_call_id) if id_))
        name = wanted
    if not found:
        hint = f" The nearest: {'; '.join(near)}." if near else " There is no other work." if not work else ""
        raise NothingMatchesError(
            f"No running or waiting work on Modal matches {name!r}.{hint} `modalflow status` lists all work: "
            "new submissions after some seconds, and no ended work."
        )
    return found


def nearest(wanted: str, there: Iterable[str]) -> list[str]:
    """Return the few most similar names."""
    return difflib.get_close_matches(wanted, list(dict.fromkeys(there)), n=3, cutoff=0.6)
