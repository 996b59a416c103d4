"""The course of a function call as points and spans, from records of any worker."""

from __future__ import annotations

from modalflow.cost.rates import DATED
from modalflow.cost.recorded_call import RecordedCall
from modalflow.cost.samples import Samples
from modalflow.cost.timeline import Timeline
from modalflow.cost.usage import Record, Reserved
from modalflow.names import TaskTry
from modalflow.operations.inventory import Work
from modalflow.ui.answers.task import Part
from modalflow.ui.views.parts import live_part, recorded_part, with_queued, with_reported

AT = 1_700_000_000.0


def record(**columns: object) -> Record:
    values: dict[str, object] = {"starting": 1.0, "running": 10.0, "occupied": 11.0, "outcome": "success"} | columns
    at = values.pop("taken_at", AT)
    return Record("fc-1", "ta-1", at, "d", "t", "r", try_number=1, **values)  # type: ignore[arg-type]


def moments(part: Part) -> list[tuple[str, float]]:
    return [(point.name, round(point.at - AT, 3)) for point in part.points]


def lengths(part: Part) -> dict[str, float]:
    return {span.name: round(span.ends - span.begins, 3) for span in part.spans}


def test_a_cold_start_is_visible() -> None:
    """All moments, each span between two of them."""
    line = Timeline(
        submitted_at=AT - 9,
        spawned_at=AT - 8,
        container_started_at=AT - 3,
        claimed_at=AT + 0.1,
        first_line_at=AT + 1,
        task_ended_at=AT + 10,
        reported_at=AT + 10.5,
        is_cold_start=True,
    )
    part = recorded_part(RecordedCall(record(), line), DATED)
    with_queued([part], AT - 30, AT - 10, AT)
    assert [name for name, _ in moments(part)] == [
        *("scheduled", "queued", "handed_over", "spawned", "container_started"),
        *("claimed", "first_line", "ended", "reported"),
    ]
    assert lengths(part) == {
        **{"scheduled": 20.0, "airflow": 1.0, "submitting": 1.0, "waiting": 5.0, "starting": 3.1},
        **{"preparing": 0.9, "running": 9.0, "reporting": 0.5},
    }
    assert part.cold


def test_a_warm_container_has_no_start() -> None:
    """It was there before the call."""
    line = Timeline(submitted_at=AT - 2, spawned_at=AT - 1, container_started_at=AT - 500, claimed_at=AT)
    part = recorded_part(RecordedCall(record(), line), DATED)
    assert "container_started" not in dict(moments(part))
    assert (lengths(part)["waiting"], part.cold) == (1.0, False)


def test_clocks_that_differ_give_no_negative_time() -> None:
    """The executor's is two seconds ahead here."""
    line = Timeline(submitted_at=AT + 1, spawned_at=AT + 2, claimed_at=AT, first_line_at=AT + 0.5)
    part = recorded_part(RecordedCall(record(), line), DATED)
    assert [at for _, at in moments(part)] == sorted(at for _, at in moments(part))
    assert all(length >= 0 for length in lengths(part).values())


def test_a_record_of_an_older_worker_has_what_it_has() -> None:
    """No time line, no samples, unknown amounts."""
    part = recorded_part(RecordedCall(record(queued=4.0)), DATED)
    assert moments(part) == [("handed_over", -4.0), ("claimed", 0.0), ("first_line", 1.0), ("ended", 11.0)]
    assert (part.dollars, part.unpriced, part.asked.cpu, part.samples.at) == (None, "unknown resources", None, [])


def test_amounts_are_asked_granted_and_used() -> None:
    """With the spark line."""
    line = Timeline(asked={"cpu": [1, 2], "memory": [512, 1024], "gpu": ["H100", "A100"], "region": "us"})
    call = RecordedCall(
        record(reserved=Reserved(1.0, 512, limit_mib=1024, timeout=60), cpu_seconds=5.0, peak_mib=300, worker_mib=50),
        line,
        Samples("fc-1", "ta-1", AT, 5.0, (0.5, 0.9), (100.0, 300.0)),
    )
    part = recorded_part(call, DATED)
    assert (part.asked.cpu, part.asked.memory_mib, part.asked.memory_limit_mib) == (1.0, 512.0, 1024.0)
    assert (part.asked.gpu, part.asked.regions) == ("H100, A100", ["us"])
    assert (part.granted.memory_limit_mib, part.granted.timeout) == (1024.0, 60.0)
    assert (part.used.cpu, part.used.cpu_peak, part.used.memory_mib) == (0.5, 0.9, 350.0)
    assert part.samples.at == [AT + 5, AT + 10]


def test_a_killed_container_is_explained() -> None:
    """Even if another process wrote only the times."""
    part = recorded_part(RecordedCall(record(outcome="lost")), DATED)
    assert part.cause == "container-lost"
    assert part.advice


def test_a_running_call_ends_now() -> None:
    """Its last span grows."""
    task = TaskTry("d", "t", "r")
    work = Work("w", "l", "running", AT, "p", "fc-1", "ta-1", task=task, submitted_at=AT - 5, spawned_at=AT - 4)
    part = live_part(work, AT + 60)
    assert lengths(part) == {"submitting": 1.0, "waiting": 4.0, "preparing": 60.0}
    waiting = live_part(Work("w", "l", "waiting", AT, task=task, submitted_at=AT, reason="paused"), AT + 7)
    assert (lengths(waiting), waiting.reason) == ({"submitting": 7.0}, "paused")


def test_airflows_queue_is_before_the_part_that_followed() -> None:
    """A deferred try was queued twice, and Airflow keeps the second time."""
    lines = [Timeline(submitted_at=AT + shift, spawned_at=AT + shift + 1) for shift in (0, 100)]
    parts = [
        recorded_part(RecordedCall(record(), lines[0]), DATED),
        recorded_part(RecordedCall(record(), lines[1]), DATED),
    ]
    with_queued(parts, AT + 98, AT + 99, AT)
    assert [part.points[0].name for part in parts] == ["handed_over", "scheduled"]


def test_an_earlier_parts_moment_is_not_the_next_ones() -> None:
    """Airflow may queue a part without scheduling it again."""
    lines = [Timeline(submitted_at=AT + shift, spawned_at=AT + shift + 1) for shift in (-1, 100)]
    parts = [recorded_part(RecordedCall(record(taken_at=AT + n), line), DATED) for n, line in enumerate(lines)]
    with_queued(parts, AT - 2, AT + 99, AT)
    assert [part.points[0].name for part in parts] == ["handed_over", "queued"]


def test_an_end_that_the_executor_reports_has_its_moment() -> None:
    """Each entry of Airflow's audit log is the report about one part: the last one before it without a report."""
    reported = Timeline(submitted_at=AT - 9, spawned_at=AT - 8, task_ended_at=AT + 10, reported_at=AT + 10.5)
    parts = [
        recorded_part(RecordedCall(record(), reported), DATED),
        recorded_part(RecordedCall(record(taken_at=AT + 100, outcome="lost"), Timeline(spawned_at=AT + 99)), DATED),
        recorded_part(RecordedCall(record(taken_at=AT + 200, outcome="lost"), Timeline(spawned_at=AT + 199)), DATED),
        live_part(Work("w", "l", "running", AT + 300, task=TaskTry("d", "t", "r"), submitted_at=AT + 299), AT + 400),
    ]
    with_reported(parts, [AT + 240, AT + 120])
    assert [dict(moments(part)).get("reported") for part in parts] == [10.5, 120.0, 240.0, None]
    assert [lengths(part).get("reporting") for part in parts] == [0.5, 9.0, 29.0, None]
    assert "ending" not in lengths(parts[1])
