"""Which work a user means: by DAG, task and run, or by an id. Pure."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from modalflow.errors import ModalflowError
from modalflow.names import task_label
from modalflow.operations.inventory import Work


class NothingMatchesError(ModalflowError):
    """Nothing is what was asked for."""


@dataclass(frozen=True)
class Target:
    """What a user asks for; None stands for any."""

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

    def matches(self, label: str) -> bool:
        """Whether a label is that of a try that is meant. It is not taken apart: ids may hold anything."""
        index = r"(\[\d+\])?" if self.map_index is None else re.escape(f"[{self.map_index}]")
        number = r"\d+" if self.try_number is None else str(self.try_number)
        task, run = re.escape(f"{self.dag_id}.{self.task_id}"), re.escape(f" run {self.run_id} try ")
        return re.fullmatch(f"{task}{index}{run}{number}", label) is not None


def matching(work: Sequence[Work], wanted: Target | str) -> list[Work]:
    """The work that is meant, by a target or by an id of it; NothingMatchesError names the nearest."""
    if isinstance(wanted, Target):
        found = [each for each in work if wanted.matches(each.label)]
        near = nearest(wanted.label, (each.label for each in work))
        name = wanted.label
    else:
        found = [each for each in work if wanted in (each.work_id, each.function_call_id)]
        near = nearest(wanted, (id_ for each in work for id_ in (each.work_id, each.function_call_id) if id_))
        name = wanted
    if not found:
        hint = f" The nearest: {'; '.join(near)}." if near else " Nothing at all is." if not work else ""
        raise NothingMatchesError(
            f"Nothing that matches {name!r} is under way on Modal.{hint} What has just been submitted is told some "
            "seconds later, and what has ended is no longer listed: see `modalflow status`."
        )
    return found


def nearest(wanted: str, there: Iterable[str]) -> list[str]:
    """The few names that are most like one."""
    return difflib.get_close_matches(wanted, list(dict.fromkeys(there)), n=3, cutoff=0.6)
