"""The parts of a try: one for each function call, from its record or from its live state."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from modalflow.cost.rates import Rates, UnknownRateError
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples as Sampled
from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import OUT_OF_MEMORY, Record, Reserved
from modalflow.operations.inventory import Work
from modalflow.reasons import Cause, cause_of
from modalflow.ui.answers.task import Amounts, Part, Point, Samples, Span
from modalflow.ui.views.losses import advice_for

#: The moments in their order, each with the name of the time after it.
_AFTER = {
    "scheduled": "scheduled",
    "queued": "airflow",
    "handed_over": "submitting",
    "spawned": "waiting",
    "container_started": "starting",
    "claimed": "preparing",
    "first_line": "running",
    "ended": "reporting",
    "reported": "ending",
}

#: The moments that only Airflow's database has.
_OF_AIRFLOW = ("scheduled", "queued")

#: Seconds by which the clocks of an executor and a container can differ without a wrong picture.
_CLOCKS = 1.0


def recorded_part(call: RecordedCall, rates: Rates) -> Part:
    """Return the part of an ended call."""
    record, line = call.record, call.timeline
    dollars, unpriced = cost_of(record, rates)
    cause, reason, advice = _end(record, line)
    points = list(_points(record, line))
    return Part(
        try_number=record.try_number,
        state="ended",
        outcome=record.outcome,
        cause=cause,
        reason=reason,
        advice=advice,
        work_id=record.work_id,
        profile=record.profile,
        image=line.image,
        region=line.region,
        cloud=line.cloud,
        function_call_id=record.function_call_id,
        container_id=record.container_id,
        cold=line.is_cold_start,
        points=points,
        spans=spans(points),
        asked=_asked(line.asked),
        granted=_granted(record.reserved),
        used=_used(record, call.samples),
        samples=_samples(call.samples),
        dollars=dollars,
        unpriced=unpriced,
    )


def live_part(work: Work, now: float, sampled: Sampled | None = None) -> Part:
    """Return the part of a call without an outcome, with its samples so far."""
    assert work.task is not None, "only tries have parts"
    began = work.since if work.state == "running" else 0.0
    moments = {
        "handed_over": work.submitted_at,
        "spawned": work.spawned_at,
        "container_started": _if_for_it(work.container_started_at, work.spawned_at),
        "claimed": began,
    }
    points = _ordered(moments)
    part = Part(
        try_number=work.task.try_number,
        state=work.state,
        reason=work.reason,
        work_id=work.work_id,
        profile=work.profile,
        function_call_id=work.function_call_id,
        container_id=work.container_id,
        executor=work.executor,
        submissions=work.submissions,
        cold="container_started" in {point.name for point in points},
        points=points,
        used=_used_so_far(sampled),
        samples=_samples(sampled),
    )
    part.spans = spans(points, now)
    return part


def with_queued(parts: Sequence[Part], scheduled_at: float, queued_at: float, now: float) -> None:
    """Add the moments when Airflow scheduled and queued a try to the part that followed.

    Airflow keeps the newest ones only, so of a try that deferred, they are those of its last part.
    """
    if not queued_at:
        return
    for part in parts:
        if part.points and part.points[0].name not in _OF_AIRFLOW and part.points[0].at >= queued_at - _CLOCKS:
            queued = Point(name="queued", at=min(queued_at, part.points[0].at))
            # A moment before the end of an earlier part is that part's.
            if 0 < scheduled_at <= queued_at and not _ended_between(parts, scheduled_at, queued_at):
                part.points = [Point(name="scheduled", at=min(scheduled_at, queued.at)), queued, *part.points]
            else:
                part.points = [queued, *part.points]
            part.spans = spans(part.points, None if part.state == "ended" else now)
            return


def with_reported(parts: Sequence[Part], reports: Iterable[float]) -> None:
    """Add the moments when Airflow noted the executor's reports: of ends that no supervisor has reported."""
    for at in sorted(reports):
        silent = [part for part in parts if part.state == "ended" and part.points and _is_silent(part, at)]
        if silent:
            part = silent[-1]
            part.points = [*part.points, Point(name="reported", at=max(at, part.points[-1].at))]
            if part.spans:
                part.spans = spans(part.points)


def _is_silent(part: Part, at: float) -> bool:
    """Return whether a part had ended by then, and its end was reported by no one."""
    return part.points[-1].at <= at + _CLOCKS and "reported" not in {point.name for point in part.points}


def _ended_between(parts: Sequence[Part], first: float, last: float) -> bool:
    return any(part.points and first < part.points[-1].at <= last for part in parts)


def spans(points: Sequence[Point], now: float | None = None) -> list[Span]:
    """Return the times between points; up to ``now`` after the last one."""
    ends = [point.at for point in points[1:]] + ([now] if now is not None else [])
    return [
        Span(name=_AFTER[point.name], begins=point.at, ends=max(point.at, end))
        for point, end in zip(points, ends, strict=False)
    ]


def cost_of(record: Record, rates: Rates) -> tuple[float | None, str]:
    """Return the estimated dollars, or None and the resource without a rate."""
    try:
        return float(rates.dollars(record)), ""
    except UnknownRateError as error:
        return None, str(error)


def _points(record: Record, line: Timeline) -> Iterator[Point]:
    moments = {
        "handed_over": line.submitted_at or (record.taken_at - record.queued if record.queued else 0.0),
        "spawned": line.spawned_at,
        "container_started": _if_for_it(line.container_started_at, line.spawned_at) if line.is_cold_start else 0.0,
        "claimed": line.claimed_at or record.taken_at,
        "first_line": line.first_line_at or record.ready_at,
    }
    yield from _ordered(moments)
    last = {"ended": line.task_ended_at or record.ended_at, "reported": line.reported_at}
    floor = max((at for at in moments.values()), default=0.0)
    for name, at in sorted(last.items(), key=lambda each: each[1]):
        if at:
            yield Point(name=name, at=max(at, floor))


def _ordered(moments: Mapping[str, float]) -> list[Point]:
    """Return the known moments. Clocks differ, so one that seems to precede the one before counts as equal to it."""
    points: list[Point] = []
    for name, at in moments.items():
        if at:
            points.append(Point(name=name, at=max(at, points[-1].at if points else 0.0)))
    return points


def _if_for_it(container_started_at: float, spawned_at: float) -> float:
    """Return when the container started; 0 if it was there before the call."""
    return container_started_at if container_started_at >= spawned_at - _CLOCKS else 0.0


def _end(record: Record, line: Timeline) -> tuple[str, str, str]:
    """Return the cause, the reason and the advice; empty after a normal end."""
    cause = line.cause or (record.outcome if record.outcome == OUT_OF_MEMORY else "")
    if not cause and record.is_of_killed:
        cause = Cause.CONTAINER_LOST.value
    return cause, line.reason, advice_for(cause_of(cause), line.reason) if cause else ""


def _asked(asked: Mapping[str, Any]) -> Amounts:
    cpu, memory = asked.get("cpu"), asked.get("memory")
    region, gpu = asked.get("region"), asked.get("gpu")
    return Amounts(
        cpu=_number(_first(cpu)),
        memory_mib=_number(_first(memory)),
        memory_limit_mib=_number(memory[-1]) if isinstance(memory, list | tuple) and len(memory) > 1 else None,
        gpu=", ".join(map(str, gpu)) if isinstance(gpu, list | tuple) else str(gpu or ""),
        regions=[str(each) for each in (region if isinstance(region, list | tuple) else [region] if region else [])],
        cloud=str(asked.get("cloud") or ""),
        nonpreemptible=bool(asked["nonpreemptible"]) if "nonpreemptible" in asked else None,
        timeout=_number(asked.get("timeout")),
    )


def _granted(reserved: Reserved | None) -> Amounts:
    if reserved is None:
        return Amounts()
    return Amounts(
        cpu=reserved.cpu,
        memory_mib=reserved.memory_mib,
        memory_limit_mib=reserved.limit_mib or None,
        gpu=reserved.gpu,
        regions=list(reserved.regions),
        cloud=reserved.cloud,
        nonpreemptible=reserved.nonpreemptible,
        timeout=reserved.timeout or None,
    )


def _used(record: Record, sampled: Sampled | None) -> Amounts:
    return Amounts(
        cpu=record.cpu_seconds / record.running if record.running and record.cpu_seconds else None,
        cpu_peak=max(sampled.cpu) if sampled is not None and sampled.cpu else None,
        memory_mib=record.memory_mib or None,
    )


def _used_so_far(sampled: Sampled | None) -> Amounts:
    if sampled is None or not sampled.cpu:
        return Amounts()
    average = sum(sampled.cpu) / len(sampled.cpu)
    return Amounts(cpu=average, cpu_peak=max(sampled.cpu), memory_mib=max(sampled.mib))


def _samples(sampled: Sampled | None) -> Samples:
    if sampled is None:
        return Samples()
    return Samples(
        at=[sampled.began_at + (number + 1) * sampled.interval for number in range(len(sampled.cpu))],
        cpu=list(sampled.cpu),
        memory_mib=list(sampled.mib),
    )


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list | tuple) and value else value


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
