"""Answers of the UI's API with any number of rows: what the views show in tests that need no Airflow task.

They are made of the API's own types, so that a change of these reaches the views' tests.
"""

from __future__ import annotations

import datetime
import random
from collections.abc import Sequence

from modalflow.ui.answers import overview, run, spend, task, work
from modalflow.ui.answers.freshness import Freshness, Links

LINKS = Links(
    function_call="https://modal.com/id/{id}", container="https://modal.com/id/{id}", app="https://modal.com/id/ap-1"
)
PROFILES = ("default", "gpu", "large-memory")
WAITS = (
    "the profile is paused by ada",
    "budget dag etl: $20.00 a day is used up",
    "gpu has 16 function calls on Modal, its limit",
)


def fresh(now: float, *, problem: str = "", age: float = 2.0) -> Freshness:
    """Return the freshness of an answer read ``age`` seconds ago."""
    return Freshness(read_at=now - age, age=age, reading=False, problem=problem)


def overview_of(rows: int, now: float, *, manage: bool = True, problem: str = "") -> overview.Overview:
    """Return the state of some executors and profiles: none, or as many as a large installation has."""
    answer = overview.Overview(
        freshness=fresh(now, problem=problem, age=300 if problem else 2),
        links=LINKS,
        viewer=overview.Viewer(manage=manage, examine=manage, executors=True),
        app="modalflow",
        environment="main",
        version="0.5.0",
        worker_version="0.5.0",
    )
    if not rows:
        return answer
    answer.executors = [
        overview.ExecutorRow(
            id=f"scheduler-{n}/4711",
            place=f"scheduler-{n}/4711",
            version="0.5.0",
            alive_since=now - 86_400 * (n + 1) - 5_000,
            reported_at=now - (4 if n != 2 else 900),
            silent=n == 2,
            in_flight=rows // 2,
            waiting=rows // 4,
            submitted=rows // 8,
            held=3 if n == 0 else 0,
            trouble="Modal's API refused a spawn: too many requests; it tries again in 2 s" if n == 1 else "",
            trouble_at=now - 300 if n == 1 else 0,
        )
        for n in range(2 if rows <= 10 else 3)
    ]
    answer.profiles = _profiles(rows, now)
    answer.budgets = _budgets()
    answer.losses = _losses(now)
    answer.relays = [overview.RelayRow(name="scheduler-0/4800", reported_at=now - 3)]
    states = [_state(n, rows) for n in range(rows)]
    answer.totals = {name: states.count(name) for name in ("running", "submitted", "waiting")}
    return answer


def _profiles(rows: int, now: float) -> list[overview.ProfileRow]:
    third = max(1, rows // 6)
    return [
        overview.ProfileRow(
            name="default",
            containers=third // 2 + 1,
            backlog=2,
            running=third,
            submitted=third // 4,
            limits={"max_containers": "100"},
            resources={"cpu": "1", "memory": "2 GiB"},
            dollars_per_hour=0.14,
        ),
        overview.ProfileRow(
            name="gpu",
            containers=third // 4,
            running=third // 2,
            waiting=third // 2,
            state="paused",
            state_by="ada",
            state_since=now - 1_200,
            state_reason="new drivers on the GPU image",
            limits={"max_containers": "16"},
            resources={"cpu": "8", "memory": "64 GiB", "gpu": "H100"},
            dollars_per_hour=4.71,
        ),
        overview.ProfileRow(
            name="large-memory",
            containers=third // 8,
            running=third // 8,
            waiting=third // 8,
            state="draining",
            state_by="ada",
            state_since=now - 600,
            resources={"cpu": "4", "memory": "256 GiB"},
            dollars_per_hour=2.3,
        ),
    ]


def _budgets() -> list[overview.BudgetRow]:
    return [
        overview.BudgetRow(
            scope="dag", subject="etl", dollars=20, spent=19.2, running=1.25, used_up=True, action="hold"
        ),
        overview.BudgetRow(scope="profile", subject="gpu", dollars=100, spent=61, running=22, left=17, action="refuse"),
        overview.BudgetRow(scope="all", per="month", dollars=2_000, spent=311.4, running=24, left=1_664.6),
    ]


def _losses(now: float) -> list[overview.LossGroup]:
    return [
        overview.LossGroup(
            cause="out-of-memory",
            what="Its container ran out of memory while this ran as its function call",
            advice="Ask for more memory: modal_config={'memory': 8192}, or memory='auto'.",
            number=3,
            losses=[
                overview.LossRow(
                    at=now - 2_000 * (n + 1),
                    cause="out-of-memory",
                    reason=f"Container ta-0{n} ran out of memory at 4,096 MiB",
                    dag_id="etl",
                    task_id="load",
                    run_id="r1",
                    try_number=n + 1,
                )
                for n in range(3)
            ],
        ),
        overview.LossGroup(
            cause="preempted",
            what="Modal took its container away",
            advice="Nothing to do: the try is repeated.",
            number=1,
            losses=[overview.LossRow(at=now - 50_000, cause="preempted", reason="Container ta-7 was preempted")],
        ),
    ]


def _state(row: int, rows: int) -> str:
    return "running" if row < rows * 0.6 else "submitted" if row < rows * 0.7 else "waiting"


def work_of(
    rows: int, now: float, *, cancellable: bool = True, states: Sequence[str] = (), problem: str = ""
) -> work.WorkTable:
    """Return a table of work with this many rows, of which ``states`` selects some."""
    chance = random.Random(7)
    dags = ["etl", "train_models", "nightly_report", "crawl"]
    every: list[list[work.Cell]] = []
    for n in range(rows):
        state, dag = _state(n, rows), dags[n % len(dags)]
        on_modal = state != "waiting"
        every.append(
            [
                f"w{n}",
                f"{dag}.load run r1 map index {n} try 1",
                state,
                now - chance.randrange(2, 20_000),
                PROFILES[n % 3],
                "" if on_modal else WAITS[n % len(WAITS)],
                dag,
                "load",
                "r1",
                n,
                1,
                f"fc-01KB{n * 7919 % 99991:05d}QF{n:05d}" if on_modal else "",
                f"ta-01KB{n * 7919 % 99991:05d}QF{n:05d}" if state == "running" else "",
                "scheduler-0/4711",
                1 if on_modal else 0,
            ]
        )
    shown = [row for row in every if not states or row[2] in states]
    return work.WorkTable(
        freshness=fresh(now, problem=problem, age=300 if problem else 2),
        links=LINKS,
        rows=shown,
        matched=len(shown),
        total=rows,
        states={name: sum(row[2] == name for row in every) for name in ("running", "submitted", "waiting")},
        profiles=list(PROFILES) if rows else [],
        dags=sorted(dags) if rows else [],
        cancellable=["etl"] if cancellable and rows else [],
    )


def spend_of(by: str, now: float, *, empty: bool = False, days: int = 7) -> spend.Spend:
    """Return the spend of some days."""
    today = datetime.datetime.fromtimestamp(now, datetime.UTC).date()
    answer = spend.Spend(
        freshness=fresh(now),
        by=by,
        days=[(today - datetime.timedelta(days=n)).isoformat() for n in reversed(range(days))],
        rates="Modal's rates of 2026-10",
    )
    if empty:
        return answer
    names = {
        "dag": ["etl", "train_models", "nightly_report", "crawl", "(others)"],
        "profile": list(PROFILES),
        "day": ["all"],
    }
    for number, name in enumerate(names[by]):
        dollars = [round((3 + (day * 7 + number * 3) % 5) * 4 / (number + 1), 2) for day in range(days)]
        answer.series.append(spend.Series(name=name, dollars=dollars, total=sum(dollars), calls=900 // (number + 1)))
    answer.total = sum(series.total for series in answer.series)
    answer.calls = sum(series.calls for series in answer.series)
    answer.unpriced = {"GPU B300": 2}
    return answer


_SPANS = (
    ("scheduled", -2.5, 0.0),
    ("airflow", 0.0, 0.4),
    ("submitting", 0.4, 0.9),
    ("waiting", 0.9, 3.0),
    ("starting", 3.0, 5.5),
    ("preparing", 5.5, 6.2),
    ("running", 6.2, 95.0),
    ("reporting", 95.0, 95.6),
)
_POINTS = (
    "scheduled",
    "queued",
    "handed_over",
    "spawned",
    "container_started",
    "claimed",
    "first_line",
    "ended",
    "reported",
)


def part_of(begins: float, *, number: int = 1, outcome: str = "success", try_number: int = 1) -> task.Part:
    """Return one function call with everything known of it."""
    times = [_SPANS[0][1], *(ends for _, _, ends in _SPANS)]
    seconds = range(0, 89, 4)
    return task.Part(
        try_number=try_number,
        number=number,
        state="ended",
        outcome=outcome,
        work_id=f"{begins:.0f}-{number}",
        profile="default",
        image="im-0Ax9",
        function_call_id=f"fc-01K{number}{try_number}",
        container_id=f"ta-01K{number}{try_number}",
        submissions=1,
        cold=number == 1,
        points=[task.Point(name=name, at=begins + at) for name, at in zip(_POINTS, times, strict=True)],
        spans=[task.Span(name=name, begins=begins + since, ends=begins + until) for name, since, until in _SPANS],
        asked=task.Amounts(cpu=2, memory_mib=4_096, gpu="H100"),
        granted=task.Amounts(
            cpu=2, memory_mib=4_096, memory_limit_mib=8_192, gpu="H100", timeout=7_200, regions=["eu"]
        ),
        used=task.Amounts(cpu=1.4, cpu_peak=2, memory_mib=3_100),
        samples=task.Samples(
            at=[begins + 6.2 + second for second in seconds],
            cpu=[0.4 + (second * 7 % 11) / 7 for second in seconds],
            memory_mib=[500 + second * 28 for second in seconds],
        ),
        dollars=0.1243,
    )


def running_part(now: float, *, sampled: bool = True) -> task.Part:
    """Return a function call that runs, with the samples that came with its last line 20 s ago, or without any."""
    part = part_of(now - 80)
    part.state, part.outcome, part.executor, part.dollars = "running", "", "scheduler-0/4711", None
    part.points = part.points[:6]
    part.spans = [*part.spans[:5], task.Span(name="preparing", begins=part.spans[4].ends, ends=now)]
    part.asked = part.granted = part.used = task.Amounts()
    part.samples = task.Samples()
    if sampled:
        part.samples = task.Samples(
            at=[now - 70 + second for second in range(0, 51, 5)],
            cpu=[0.2 + second / 50 for second in range(0, 51, 5)],
            memory_mib=[400 + second * 20 for second in range(0, 51, 5)],
        )
        part.used = task.Amounts(cpu=0.7, cpu_peak=1.2, memory_mib=1_400)
    return part


def running_task(now: float, *, sampled: bool = True) -> task.TaskAnswer:
    """Return a task instance that runs."""
    part = running_part(now, sampled=sampled)
    return task.TaskAnswer(
        freshness=fresh(now),
        links=LINKS,
        dag_id="losses",
        run_id="run-0",
        task_id="once",
        state="running",
        tries=[task.Try(try_number=1, state="running", parts=[part])],
    )


def task_of(tries: int, now: float, *, cancellable: bool = True) -> task.TaskAnswer:
    """Return a task instance with this many tries: the newest deferred once, the others ran out of memory."""
    answer = task.TaskAnswer(
        freshness=fresh(now),
        links=LINKS,
        dag_id="losses",
        run_id="run-0",
        task_id="once",
        cancellable=cancellable and tries > 0,
    )
    for number in range(tries, 0, -1):
        begins = now - 400 * (tries - number + 1)
        if number == tries:
            parts = [
                part_of(begins, outcome="deferred", try_number=number),
                part_of(begins + 150, number=2, try_number=number),
            ]
        else:
            lost = part_of(begins, outcome="out-of-memory", try_number=number)
            lost.cause = "out-of-memory"
            lost.reason = "Container ta-01K ran out of memory at 4,096 MiB"
            lost.advice = "Ask for more memory: modal_config={'memory': 8192}, or memory='auto'."
            parts = [lost]
        state = "success" if number == tries else "failed"
        answer.tries.append(task.Try(try_number=number, state=state, parts=parts, dollars=0.1243 * len(parts)))
    answer.state = "success" if tries else ""
    answer.dollars = sum(one.dollars or 0 for one in answer.tries) if tries else None
    return answer


def run_of(bars: int, now: float) -> run.RunAnswer:
    """Return a DAG run with this many function calls, some ten in a container."""
    begins = now - 900
    answer = run.RunAnswer(
        freshness=fresh(now), links=LINKS, dag_id="losses", run_id="run-0", state="running", begins=begins, ends=now
    )
    names = ("extract", "load", "train")
    for number in range(0, bars, 10):
        starts = begins + (number // 10 % 40) * 8
        calls = [_bar(names[n % 3], n, starts + 85 * (n - number)) for n in range(number, min(number + 10, bars))]
        answer.containers.append(
            run.ContainerRow(
                container_id=f"ta-01KB{number * 7919 % 99991:05d}QF{number:05d}",
                profile=PROFILES[number // 10 % 3],
                begins=starts,
                ends=max(bar.ends for bar in calls),
                bars=calls,
            )
        )
    if not bars:
        answer.state = "queued"
        return answer
    every = [bar for container in answer.containers for bar in container.bars]
    answer.ends = max(bar.ends for bar in every)
    answer.costs = [
        run.TaskCost(
            task_id=name,
            calls=sum(bar.task_id == name for bar in every),
            tries=sum(bar.task_id == name for bar in every),
            seconds=sum(bar.ends - bar.begins for bar in every if bar.task_id == name),
            dollars=sum(bar.dollars or 0 for bar in every if bar.task_id == name),
        )
        for name in names
    ]
    answer.critical_path = [
        run.PathStep(task_id=bar.task_id, map_index=bar.map_index, begins=bar.begins, ends=bar.ends, wait=2.5)
        for bar in every
        if bar.critical
    ]
    answer.dollars = sum(bar.dollars or 0 for bar in every)
    answer.cold_starts = sum(bar.cold for bar in every)
    answer.waiting = bars // 5
    return answer


def _bar(task_id: str, number: int, begins: float) -> run.Bar:
    cold = number % 10 == 0
    return run.Bar(
        task_id=task_id,
        map_index=number if number > 2 else -1,
        try_number=1,
        begins=begins,
        ready=begins + (12 if cold else 1.5),
        ends=begins + 40 + number * 7 % 37,
        cold=cold,
        running=number % 10 == 9,
        outcome="running" if number % 10 == 9 else "failed" if number % 17 == 5 else "success",
        function_call_id=f"fc-01KB{number * 7919 % 99991:05d}QF{number:05d}",
        dollars=0.004 * (1 + number % 3),
        critical=number < 4,
    )
