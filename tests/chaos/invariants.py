"""What must hold whatever went wrong: the one checker of the matrix and of the soak.

Side effects are counted, not states: what the tally saw against what Airflow says.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

from modalflow.demo.airflow_api import TROUBLES, label
from modalflow.executor.losses.repeats import EVENT
from tests.chaos.stack import Chaos
from tests.chaos.tally import Visit

#: Which phases a task that meets no fault executes, by the first word of its id; the last makes it a success.
PHASES: Final = {"deferred": ("execute", "resume"), "rescheduled": ("poke-0", "poke-1")}
#: Lines of the schedulers' logs that are told of a run that went wrong.
LOGGED: Final = 60
#: The retries of a task that has any, in the matrix.
RETRIES: Final = 2
#: The task whose only retry counts every loss.
COUNTED: Final = "counted"
#: The task that fails by itself, without anybody's fault.
FAILS: Final = "fails"


def phases_of(task_id: str) -> tuple[str, ...]:
    """The phases of a task, in order."""
    return PHASES.get(task_id.partition("_")[0], ("execute",))


def problems_of_run(
    chaos: Chaos, dag_id: str, run_id: str, visits: Sequence[Visit], *, may_lose: bool, often: bool = False
) -> list[str]:
    """What does not hold of one DAG run; nothing is how it should be.

    ``may_lose``: a try may be lost. ``often``: so many that no number of retries is enough.
    """
    done = Counter(visit.what for visit in visits)
    beside = [visit for visit in visits if visit.beside]
    found = [f"executed {times} times: {what}" for what, times in done.items() if times > 1]
    found += [f"executed while another try was: {visit.what}" for visit in beside]
    reasons = reasons_of_run(chaos, dag_id, run_id)
    instances = chaos.instances(dag_id, run_id)
    if not instances:
        found.append("it has no task instances")
    for instance in instances:
        task, index, state = instance["task_id"], instance["map_index"], instance["state"]
        name = label(task, index)
        mine = [visit for visit in visits if (visit.task_id, visit.map_index) == (task, index)]
        problems = _of_end(task, state, [visit.phase for visit in mine if visit.try_number == instance["try_number"]])
        if state == "failed" and not any(reason.startswith(f"{name}, try ") for reason in reasons):
            problems += [] if _log_says_why(chaos, dag_id, run_id, task, index) else ["failed, and nobody says why"]
        if not may_lose:
            problems += _of_the_unharmed(task, state, [visit.phase for visit in mine])
        elif not often and state == "failed" and retries_of(dag_id, task):
            problems.append("failed although it can bear one loss")
        found += [f"{name}: {problem}" for problem in problems]
    return found


def _of_end(task_id: str, state: str | None, phases_of_last_try: Sequence[str]) -> list[str]:
    if state not in ("success", "failed"):
        return [f"it has not ended: {state}"]
    last = phases_of(task_id)[-1]
    if state == "success" and task_id == FAILS:
        return ["it is a success, and fails by itself"]
    if state == "success" and last not in phases_of_last_try:
        return [f"it is a success, but phase {last} of its last try never ran"]
    return []


def _of_the_unharmed(task_id: str, state: str | None, phases: Sequence[str]) -> list[str]:
    found = [] if state == "success" else [f"it is {state}; nothing had to be lost"]
    if Counter(phases) != Counter(phases_of(task_id)):
        found.append(f"it executed {dict(Counter(phases))}; expected each of {phases_of(task_id)} once")
    return found


def _log_says_why(chaos: Chaos, dag_id: str, run_id: str, task_id: str, map_index: int) -> bool:
    """Whether the log of a task's last try has an error: where its supervisor lived, that is where it says why."""
    api = chaos.stack.airflow.api
    [instance] = [
        each for each in api.task_instances(dag_id, run_id) if (each.task_id, each.map_index) == (task_id, map_index)
    ]
    return any(word in line for line in api.log(dag_id, run_id, instance) for word in ("ERROR", "CRITICAL"))


def retries_of(dag_id: str, task_id: str) -> bool:
    """Whether a task may lose a try."""
    return not (task_id.startswith(("once", "stated", COUNTED)) or dag_id.startswith("chaos_phases_once"))


def retries_used(chaos: Chaos, dag_id: str, run_id: str) -> list[str]:
    """Which tasks used a retry, or failed, although they may run again without one after a loss."""
    rows = chaos.query(
        "select task_id, map_index, count(*) as number from log "
        "where dag_id = :dag and run_id = :run and event = :event group by task_id, map_index",
        dag=dag_id,
        run=run_id,
        event=EVENT,
    )
    again = {(row["task_id"], row["map_index"]): row["number"] for row in rows}
    found = []
    for instance in chaos.instances(dag_id, run_id):
        task, index = instance["task_id"], instance["map_index"]
        number = again.get((task, index), 0)
        declared = 1 if task == COUNTED else RETRIES if retries_of(dag_id, task) else 0
        if instance["max_tries"] != declared + number:
            found.append(f"{label(task, index)} has max_tries {instance['max_tries']}, and ran again {number} times")
        if task == COUNTED and (number or instance["state"] != "success"):
            found.append(f"{task} is to use its own retry: {instance}, and ran again {number} times")
        if task == COUNTED or not (declared or task == "stated"):
            continue
        if (instance["state"], instance["try_number"]) != ("success", 1 + number):
            found.append(f"{label(task, index)} used a retry: {instance}, and ran again {number} times")
    return found


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
    lines += [f"  {line}" for line in chaos.logged(run_id)[-LOGGED:]]
    return "\n".join(lines)


def leftovers(chaos: Chaos) -> list[str]:
    """What is still there although all has ended."""
    found = [f"container {each} still has an input" for each in chaos.busy_containers()]
    found += [f"{name} has {calls} calls in flight" for name, calls in chaos.in_flight().items() if calls]
    return found
