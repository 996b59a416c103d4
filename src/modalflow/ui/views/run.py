"""A DAG run by container: bars, costs, and the critical path."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from modalflow.cost.rates import Rates
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.usage import Record, settled
from modalflow.operations.inventory import RUNNING, Work
from modalflow.ui.answers.freshness import Freshness, Links
from modalflow.ui.answers.run import Bar, ContainerRow, RunAnswer, TaskCost
from modalflow.ui.sources.airflow_rows import Run, RunRows
from modalflow.ui.views.critical_path import critical_path
from modalflow.ui.views.parts import cost_of


@dataclass(frozen=True)
class RunFacts:
    """All that is known of a DAG run."""

    run: Run
    calls: Sequence[RecordedCall]
    work: Sequence[Work]
    rows: RunRows
    rates: Rates
    complete: bool
    """Whether the records have been read."""


def run_answer(facts: RunFacts, *, freshness: Freshness, links: Links, now: float) -> RunAnswer:
    """Return the answer for a user who may read the run."""
    path = critical_path(facts.rows.instances, facts.rows.upstream)
    critical = {(step.task_id, step.map_index) for step in path}
    rows = _containers(facts, critical, now)
    bars = [bar for row in rows for bar in row.bars]
    costs = _costs(facts)
    known = [each.dollars for each in costs if each.dollars is not None]
    begins = [facts.run.began_at] if facts.run.began_at else []
    return RunAnswer(
        freshness=freshness,
        links=links,
        dag_id=facts.run.dag_id,
        run_id=facts.run.run_id,
        state=facts.run.state,
        begins=min([*begins, *(row.begins for row in rows)], default=0.0),
        ends=max([facts.run.ended_at or now, *(row.ends for row in rows)]),
        containers=rows,
        waiting=sum(work.state != RUNNING for work in facts.work),
        costs=costs,
        critical_path=path,
        dollars=round(sum(known), 9) if known else None,
        cold_starts=sum(bar.cold for bar in bars),
        complete=facts.complete,
    )


def _containers(facts: RunFacts, critical: set[tuple[str, int]], now: float) -> list[ContainerRow]:
    bars: dict[str, list[Bar]] = defaultdict(list)
    profiles: dict[str, str] = {}
    for call in facts.calls:
        record = call.record
        profiles.setdefault(record.container_id, record.profile)
        bars[record.container_id].append(_ended_bar(call, facts.rates, critical))
    ended = {call.record.work_id for call in facts.calls}
    for work in facts.work:
        if work.state == RUNNING and work.work_id not in ended and work.task is not None:
            profiles.setdefault(work.container_id, work.profile)
            bars[work.container_id].append(_running_bar(work, critical, now))
    rows = [
        ContainerRow(
            container_id=container_id,
            profile=profiles[container_id],
            begins=min(bar.begins for bar in found),
            ends=max(bar.ends for bar in found),
            bars=sorted(found, key=lambda bar: bar.begins),
        )
        for container_id, found in bars.items()
    ]
    return sorted(rows, key=lambda row: (row.begins, row.container_id))


def _ended_bar(call: RecordedCall, rates: Rates, critical: set[tuple[str, int]]) -> Bar:
    record, line = call.record, call.timeline
    cold = line.is_cold_start
    return Bar(
        task_id=record.task_id,
        map_index=record.map_index,
        try_number=record.try_number,
        begins=record.taken_at - record.cold,
        ready=record.ready_at,
        ends=record.ended_at,
        cold=cold,
        outcome=record.outcome,
        function_call_id=record.function_call_id,
        dollars=cost_of(record, rates)[0],
        critical=(record.task_id, record.map_index) in critical,
    )


def _running_bar(work: Work, critical: set[tuple[str, int]], now: float) -> Bar:
    assert work.task is not None, "only tries have bars"
    started = work.container_started_at
    cold = bool(started and work.spawned_at and started >= work.spawned_at)
    return Bar(
        task_id=work.task.task_id,
        map_index=work.task.map_index,
        try_number=work.task.try_number,
        begins=started if cold else work.since,
        ready=work.since,
        ends=max(now, work.since),
        cold=cold,
        running=True,
        function_call_id=work.function_call_id,
        critical=(work.task.task_id, work.task.map_index) in critical,
    )


def _costs(facts: RunFacts) -> list[TaskCost]:
    by_task: dict[str, list[Record]] = defaultdict(list)
    for record in settled(call.record for call in facts.calls):
        by_task[record.task_id].append(record)
    costs = [_cost(task_id, records, facts.rates) for task_id, records in by_task.items()]
    return sorted(costs, key=lambda each: (-(each.dollars or 0.0), each.task_id))


def _cost(task_id: str, records: Sequence[Record], rates: Rates) -> TaskCost:
    dollars = [cost for record in records if (cost := cost_of(record, rates)[0]) is not None]
    return TaskCost(
        task_id=task_id,
        calls=len(records),
        tries=len({(record.map_index, record.try_number) for record in records}),
        seconds=round(sum(record.occupied for record in records), 3),
        dollars=round(sum(dollars), 9) if dollars else None,
    )
