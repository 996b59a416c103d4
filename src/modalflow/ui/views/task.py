"""A task instance: its tries, from records, the live state and Airflow's database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modalflow.cost.rates import Rates
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples
from modalflow.operations.inventory import Work
from modalflow.ui.answers.freshness import Freshness, Links
from modalflow.ui.answers.task import Part, Point, TaskAnswer, Try
from modalflow.ui.sources.airflow_rows import Instance, Loss, TryRow
from modalflow.ui.views.losses import advice_for, cause_of
from modalflow.ui.views.parts import live_part, recorded_part, with_queued, with_reported


@dataclass(frozen=True)
class TaskFacts:
    """All that is known of a task instance."""

    instance: Instance
    calls: Sequence[RecordedCall]
    work: Sequence[Work]
    samples: Mapping[tuple[str, str], Samples]
    """Those of running calls, by the ids of call and container."""
    rates: Rates
    complete: bool
    """Whether the records have been read."""


def task_answer(
    facts: TaskFacts, *, editable: bool, cluster: bool, freshness: Freshness, links: Links, now: float
) -> TaskAnswer:
    """Return the answer for a user.

    ``editable`` is whether the user may cancel it, ``cluster`` whether the user may see hosts of executors.
    """
    instance = facts.instance
    parts = _parts(facts, now)
    for part in parts:
        part.executor = part.executor if cluster else ""
    rows = {row.try_number: row for row in instance.tries}
    numbers = sorted(rows.keys() | {part.try_number for part in parts}, reverse=True)
    tries = [_try(rows.get(number, TryRow(number)), parts, instance.losses, now) for number in numbers]
    shown = [each for each in tries if each.parts]
    return TaskAnswer(
        freshness=freshness,
        links=links,
        dag_id=instance.dag_id,
        run_id=instance.run_id,
        task_id=instance.task_id,
        map_index=instance.map_index,
        state=instance.state,
        on_modal=bool(shown),
        cancellable=editable and any(part.state != "ended" and part.work_id for part in parts),
        tries=shown,
        dollars=_sum(each.dollars for each in shown),
        complete=facts.complete,
    )


def _parts(facts: TaskFacts, now: float) -> list[Part]:
    recorded = [recorded_part(call, facts.rates) for call in facts.calls]
    ended = {part.work_id for part in recorded}
    # A ledger entry can remain after the end, and a record precedes the executor's next report.
    live = [work for work in facts.work if work.work_id not in ended]
    return recorded + [
        live_part(work, now, facts.samples.get((work.function_call_id, work.container_id))) for work in live
    ]


def _try(row: TryRow, all_parts: Iterable[Part], losses: Sequence[Loss], now: float) -> Try:
    parts = [part for part in all_parts if part.try_number == row.try_number]
    if not parts and row.function_call_id:
        parts = [_unrecorded(row)]
    parts.sort(key=lambda part: part.points[0].at if part.points else 0.0)
    for number, part in enumerate(parts, 1):
        part.number = number
    with_queued(parts, row.scheduled_at, row.queued_at, now)
    own = [loss for loss in losses if loss.try_number == row.try_number]
    with_reported(parts, [loss.at for loss in own])
    _explain(parts, own)
    return Try(
        try_number=row.try_number,
        state=row.state,
        parts=parts,
        dollars=_sum(part.dollars for part in parts),
    )


def _unrecorded(row: TryRow) -> Part:
    """Return what Airflow's database knows of a function call."""
    state = {"queued": "submitted", "running": "running", "restarting": "running"}.get(row.state, "ended")
    moments = {
        "scheduled": row.scheduled_at if row.scheduled_at <= row.queued_at else 0.0,
        "queued": row.queued_at,
        "ended": row.ended_at if state == "ended" else 0.0,
    }
    return Part(
        try_number=row.try_number,
        state=state,
        outcome=row.state if state == "ended" else "",
        work_id=row.work_id,
        function_call_id=row.function_call_id,
        points=[Point(name=name, at=at) for name, at in moments.items() if at],
    )


def _explain(parts: Sequence[Part], losses: Sequence[Loss]) -> None:
    """Add the executor's reason to the last part, if the worker could not write one."""
    if parts and losses and not parts[-1].reason:
        # The newest entry comes first.
        cause = cause_of(losses[0].text)
        parts[-1].reason = losses[0].text
        parts[-1].cause = cause.value
        parts[-1].advice = advice_for(cause, losses[0].text)


def _sum(dollars: Iterable[float | None]) -> float | None:
    known = [each for each in dollars if each is not None]
    return round(sum(known), 9) if known else None
