"""Measurements of the executor, each with the real executor, engine and SDK on a local control plane.

Each function returns figures by title. ``executor.ROWS`` has their goals and the naive executor's figures.
"""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

from benchmarks import machine
from benchmarks.executor_stage import Stage, Stamped, beat, beat_until, queue, workload
from benchmarks.naive_executor import NaiveExecutor

PATIENCE = 1200.0

#: Seconds between two heartbeats where heartbeats are timed.
PAUSE = 0.02

Figures = dict[str, float]


@contextmanager
def started(stage: Stage) -> Iterator[tuple[Any, Stamped]]:
    """Yield an executor and its updates, with the moment at which each came: the next ``sync`` may report it."""
    executor = stage.executor()
    updates = Stamped()
    executor._engine.wiring.outbox.updates = updates
    try:
        yield executor, updates
    finally:
        executor.terminate()


def submission(stage: Stage, number: int) -> Figures:
    """Measure from the heartbeat with all workloads to the function call id of the last."""
    with started(stage) as (executor, updates):
        queue(executor, 10, "first")
        beat_until(executor, lambda: len(updates.at) >= 10, PATIENCE, PAUSE)
        updates.at.clear()
        ids = queue(executor, number, "submitted")
        began, used = time.time(), time.process_time()
        handed = beat(executor)
        beat_until(executor, lambda: len(updates.at) >= number, PATIENCE, PAUSE)
        used = time.process_time() - used
        last = max(updates.at[each, "STARTED"] for each in ids)
        return {"submitted": last - began, "handed over": 1000 * handed, "cpu per submission": 1000 * used / number}


def running(stage: Stage, number: int, ends: int) -> Figures:
    """Measure with this many running: every second heartbeat, one ends and another begins."""
    with started(stage) as (executor, updates):
        for _ in range(0, number, 1000):
            queue(executor, min(1000, number), "running")
            beat(executor)
        beat_until(executor, lambda: len(updates.at) >= number, PATIENCE)
        ids = queue(executor, ends, "ending")
        beat_until(executor, lambda: len(updates.at) >= number + ends, PATIENCE)
        partition = executor._engine.wiring.partition
        stage.function("play").remote(["warm"], partition, 0.0)
        stage.count_from_now()
        playing = stage.function("play").spawn(ids, partition, 2 * PAUSE)
        took, used = [], []
        for turn in range(2 * ends):
            if turn % 2:
                queue(executor, 1, f"new-{turn}")
            before = time.thread_time()
            took.append(beat(executor))
            used.append(time.thread_time() - before)
            time.sleep(PAUSE)
        counts = stage.counts()
        told = {work_id: times for work_id, *times in playing.get(timeout=PATIENCE)}
        beat_until(executor, lambda: all((each, "SUCCESS") in updates.at for each in ids), PATIENCE)
        from_end = [updates.at[each, "SUCCESS"] - told[each][0] for each in ids]
        from_event = [updates.at[each, "SUCCESS"] - told[each][1] for each in ids]
        rpcs = {name.removeprefix("clients "): n for name, n in counts.items() if name.startswith("clients ")}
        with_work = ("FunctionMap", "DictPop", "DictUpdate")
        return {
            "heartbeat p50": 1000 * statistics.median(took),
            "heartbeat p99": 1000 * percentile(took, 99),
            "heartbeat cpu p99": 1000 * percentile(used, 99),
            "RPCs per heartbeat": sum(rpcs.values()) / len(took),
            "RPCs per heartbeat without work": sum(n for rpc, n in rpcs.items() if rpc not in with_work) / len(took),
            "outcome after event p50": statistics.median(from_event),
            "outcome after event p95": percentile(from_event, 95),
            "outcome after end p50": statistics.median(from_end),
            "outcome after end p95": percentile(from_end, 95),
        }


def burst(stage: Stage, number: int) -> Figures:
    """Measure with this many known outcomes: the longest heartbeat until all are reported to Airflow."""
    with started(stage) as (executor, updates):
        ids = queue(executor, number, "burst")
        beat_until(executor, lambda: len(updates.at) >= number, PATIENCE)
        stage.function("tell").remote(ids, executor._engine.wiring.partition)
        deadline = time.monotonic() + PATIENCE
        while not all((each, "SUCCESS") in updates.at for each in ids) and time.monotonic() < deadline:
            time.sleep(PAUSE)
        took = []
        while executor.running:
            before = time.thread_time()
            beat(executor)
            took.append(time.thread_time() - before)
        return {
            "burst: heartbeats": len(took),
            "burst: cpu of the longest": 1000 * max(took),
            "burst: cpu of the median": 1000 * statistics.median(took),
        }


def memory(stage: Stage, number: int) -> Figures:
    """Measure the Python objects of a running workload, including Airflow's."""
    with started(stage) as (executor, updates):
        queue(executor, 100, "warm")
        beat_until(executor, lambda: len(updates.at) >= 100, PATIENCE)
        updates.at.clear()
        gc.collect()
        tracemalloc.start()
        queue(executor, number, "held")
        beat_until(executor, lambda: len(updates.at) >= number, PATIENCE)
        updates.at.clear()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return {"memory": taken / number / 1024}


def growth(stage: Stage, number: int, wave: int = 2000) -> Iterator[tuple[int, float, int]]:
    """So many workloads through one executor: how many so far, MB of resident memory, and Python objects."""
    with started(stage) as (executor, updates):
        done = 0
        while done < number:
            ids = queue(executor, wave, f"wave-{done}")
            beat_until(executor, lambda: sum(kind == "STARTED" for _, kind in list(updates.at)) >= wave, PATIENCE)
            stage.function("tell").remote(ids, executor._engine.wiring.partition)
            beat_until(executor, lambda: not executor.running, PATIENCE)
            beat_until(executor, lambda: not len(executor._engine.wiring.removals), PATIENCE)
            updates.at.clear()
            done += wave
            gc.collect()
            yield done, machine.memory_of_this() / 1024, len(gc.get_objects())


def naive(stage: Stage, number: int) -> Figures:
    """Measure the naive executor with this many workloads. All run during the timed heartbeat, and one ends."""
    executor = NaiveExecutor(stage.client, 1_000_000)
    queue(executor, 1, "first")
    beat(executor)
    workloads = [workload(f"naive-{n}") for n in range(number)]
    for each in workloads:
        executor.queue_workload(each, MagicMock())
    began = time.time()
    handed = beat(executor)
    submitted = time.time() - began - handed / (number + 1)
    stage.count_from_now()
    took = [beat(executor) for _ in range(2)]
    counts = stage.counts()
    ending = workloads[number // 2]
    playing = stage.function("play").spawn([ending.ti.external_executor_id], "nobody", 0.0)
    while ending.key in executor.running:
        beat(executor)
    told = time.time()
    _, end, event = playing.get(timeout=PATIENCE)[0]
    return {
        "submitted": submitted,
        "handed over": 1000 * handed,
        "heartbeat p50": 1000 * statistics.median(took),
        "heartbeat p99": 1000 * max(took),
        "RPCs per heartbeat": sum(counts.values()) / len(took),
        "RPCs per heartbeat without work": sum(counts.values()) / len(took),
        "outcome after event p50": told - event,
        "outcome after end p50": told - end,
    }


def percentile(figures: list[float], part: int) -> float:
    return statistics.quantiles(figures, n=100, method="inclusive")[part - 1]
