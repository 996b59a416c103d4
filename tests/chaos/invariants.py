"""What must hold whatever went wrong: the one checker of the matrix and of the soak.

Side effects are counted, not states: what the tally saw against what Airflow says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from modalflow.demo.airflow_api import TROUBLES, label
from tests.chaos.stack import Chaos
from tests.chaos.tally import Visit

#: Which phases a task that meets no fault executes, by the first word of its id; the last makes it a success.
PHASES: Final = {"deferred": ("execute", "resume"), "rescheduled": ("poke-0", "poke-1")}
#: The task that fails by itself, without anybody's fault.
FAILS: Final = "fails"


def phases_of(task_id: str) -> tuple[str, ...]:
    """The phases of a task, in order."""
    return PHASES.get(task_id.partition("_")[0], ("execute",))


def problems_of_run(chaos: Chaos, dag_id: str, run_id: str, visits: Sequence[Visit], may_lose: bool) -> list[str]:
    """What does not hold of one DAG run; nothing is how it should be."""
    found = []
    done = Counter(visit.what for visit in visits)
    found += [f"executed {times} times: {what}" for what, times in done.items() if times > 1]
    reasons = reasons_of_run(chaos, dag_id, run_id)
    instances = chaos.instances(dag_id, run_id)
    if not instances:
        found.append("it has no task instances")
    for instance in instances:
        task, index, state = instance["task_id"], instance["map_index"], instance["state"]
        name = label(task, index)
        mine = [visit for visit in visits if (visit.task_id, visit.map_index) == (task, index)]
        if state not in ("success", "failed"):
            found.append(f"{name} has not ended: {state}")
        if state == "success":
            last = phases_of(task)[-1]
            if not any(visit.phase == last and visit.try_number == instance["try_number"] for visit in mine):
                found.append(f"{name} is a success, but phase {last} of try {instance['try_number']} never ran")
        if task == FAILS and mine and not any(reason.startswith(name) for reason in reasons):
            found += [f"{name} is {state}; it fails by itself"] * (state != "failed")
            continue
        if state == "failed" and not any(reason.startswith(f"{name}, try ") for reason in reasons):
            found.append(f"{name} failed, and nobody says why")
        if not may_lose:
            if state != "success":
                found.append(f"{name} is {state}; nothing had to be lost")
            phases = Counter(visit.phase for visit in mine)
            wanted = Counter(phases_of(task))
            if phases != wanted:
                found.append(f"{name} executed {dict(phases)}; expected {dict(wanted)}")
        elif state == "failed" and retries_of(dag_id, task):
            found.append(f"{name} failed although it can bear one loss")
    return found


def retries_of(dag_id: str, task_id: str) -> bool:
    """Whether a task may lose a try."""
    return not (task_id.startswith("once") or dag_id.startswith("chaos_phases_once"))


def reasons_of_run(chaos: Chaos, dag_id: str, run_id: str) -> list[str]:
    """Why tries of a run were ended from outside, as Airflow's audit log has it: ``task: reason``."""
    rows: list[dict[str, Any]] = chaos.query(
        "select event, task_id, map_index, try_number, extra from log "
        "where dag_id = :dag and run_id = :run order by id",
        dag=dag_id,
        run=run_id,
    )
    return [
        f"{label(row['task_id'], row['map_index'])}, try {row['try_number']}: {row['event']}: {row['extra']}"
        for row in rows
        if row["event"] in TROUBLES and row["extra"]
    ]


def story(chaos: Chaos, dag_id: str, run_id: str, visits: Sequence[Visit]) -> str:
    """What became of a run, for whoever has to find out why."""
    lines = [f"{dag_id} {run_id}"]
    lines += [f"  {instance}" for instance in chaos.instances(dag_id, run_id)]
    lines += [f"  {visit}" for visit in visits]
    lines += [f"  {reason}" for reason in reasons_of_run(chaos, dag_id, run_id)]
    return "\n".join(lines)


def leftovers(chaos: Chaos) -> list[str]:
    """What is still there although all has ended."""
    found = [f"container {each} still has an input" for each in chaos.busy_containers()]
    found += [f"{name} has {calls} calls in flight" for name, calls in chaos.in_flight().items() if calls]
    return found
