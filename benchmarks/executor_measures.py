"""What is measured of the executor, each with the real ModalExecutor, engine and SDK on a local control plane."""

from __future__ import annotations

import gc
import statistics
import time
import tracemalloc
from typing import Any

from benchmarks import machine
from benchmarks.executor_stage import Stage, Stamped, beat, beat_until, queue

PATIENCE = 600.0


def stamped(executor: Any) -> Stamped:
    """Make an executor's news carry the moment at which they came."""
    news = Stamped()
    executor._engine._tracker.news = news
    return news


def submission(stage: Stage, number: int) -> dict[str, float]:
    """From the heartbeat that hands so many workloads over to the function call id of the last."""
    executor = stage.executor()
    try:
        news = stamped(executor)
        ids = queue(executor, number, "submitted")
        began = time.time()
        handed = beat(executor)
        beat_until(executor, lambda: len(news.at) >= number, PATIENCE, 0.02)
        last = max(news.at[each, "STARTED"] for each in ids)
        return {"heartbeat that hands them over (ms)": 1000 * handed, "all submitted (s)": last - began}
    finally:
        executor.end()


def running(stage: Stage, number: int, beats: int) -> dict[str, float]:
    """With so many running, and one more begun and one ended in each heartbeat: how long heartbeats take, how many RPCs
    there are, and how long outcomes take."""
    executor = stage.executor()
    try:
        news = stamped(executor)
        gc.collect()
        memory = machine.memory_of_this()
        queue(executor, number, "running")
        beat_until(executor, lambda: len(news.at) >= number, PATIENCE)
        gc.collect()
        memory = (machine.memory_of_this() - memory) / number
        ids = queue(executor, beats, "ending")
        beat_until(executor, lambda: len(news.at) >= number + beats, PATIENCE)
        every = 0.02
        partition = executor._engine._tracker.partition
        stage.count_from_now()
        playing = stage.function("play").spawn(ids, partition, every)
        took = []
        for turn in range(beats * 2):
            if turn % 2:
                queue(executor, 1, f"new-{turn}")
            took.append(beat(executor))
            time.sleep(every)
        told = {work_id: times for work_id, *times in playing.get(timeout=PATIENCE)}
        beat_until(executor, lambda: all((each, "SUCCESS") in news.at for each in ids), PATIENCE)
        counts = stage.counts()
        from_end = sorted(news.at[each, "SUCCESS"] - told[each][0] for each in ids)
        from_event = sorted(news.at[each, "SUCCESS"] - told[each][1] for each in ids)
        return {
            "heartbeat p50 (ms)": 1000 * statistics.median(took),
            "heartbeat p99 (ms)": 1000 * statistics.quantiles(took, n=100)[-1],
            "longest heartbeat (ms)": 1000 * max(took),
            "outcome ready after the work ended, p50 (s)": statistics.median(from_end),
            "outcome ready after the work ended, p95 (s)": statistics.quantiles(from_end, n=20)[-1],
            "outcome ready after its event was accepted, p95 (s)": statistics.quantiles(from_event, n=20)[-1],
            "resident memory per workload (KiB)": memory,
            **{f"RPCs, {name}": count for name, count in counts.items() if count},
        }
    finally:
        executor.end()


def memory(stage: Stage, number: int) -> dict[str, float]:
    """What the Python objects of a running workload take."""
    executor = stage.executor()
    try:
        news = stamped(executor)
        queue(executor, 100, "warm")
        beat_until(executor, lambda: len(news.at) >= 100, PATIENCE)
        news.at.clear()
        gc.collect()
        tracemalloc.start()
        queue(executor, number, "held")
        beat_until(executor, lambda: len(news.at) >= number, PATIENCE)
        news.at.clear()
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
        for line in tracemalloc.take_snapshot().statistics("lineno")[:12]:
            print(line)
        tracemalloc.stop()
        return {"Python objects per workload (KiB)": taken / number / 1024}
    finally:
        executor.end()
