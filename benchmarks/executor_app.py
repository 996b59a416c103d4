"""The app for the executor's benchmark: a Function for submitted work, and a container in the role of workers.

Ten thousand real containers do not fit on a machine. So one stub input holds the only container of ``run-default``
forever, and all other submissions are queued. ``play`` reports on them as a worker would, with the worker's own code
(``worker.ledger``), from a real container.
"""

from __future__ import annotations

from typing import Any

import modal

from modalflow.names import Names

NAMES = Names("bench-executor")

image = modal.Image.debian_slim().add_local_python_source("modalflow", "benchmarks")
app = modal.App(NAMES.app, image=image, include_source=False)


@app.function(name=NAMES.function("default"), max_containers=1, timeout=24 * 3600)
def run(submission: dict[str, Any]) -> None:
    """Take an input and keep it."""
    import threading

    threading.Event().wait()


@app.function(max_containers=1, timeout=24 * 3600, scaledown_window=20 * 60)
@modal.concurrent(max_inputs=100)
async def play(work_ids: list[str], partition: str, every: float) -> list[tuple[str, float, float]]:
    """Act as the worker of these work ids, with one end every so many seconds.

    Returns for each the time of its end, and the time of its accepted event, by the machine's clock. The executor
    shares this clock.
    """
    import asyncio
    import time

    from modalflow.protocol.messages import Entry, State
    from modalflow.worker.ledger import Ledger

    ledger = Ledger(modal.Dict.from_name(NAMES.ledger), modal.Queue.from_name(NAMES.events))
    # A running one: for silent work, the executor asks Modal for its status.
    call = modal.current_function_call_id() or ""

    async def one(turn: int, work_id: str) -> tuple[str, float, float]:
        begun = Entry(work_id, State.RUNNING, call, "ta-played", work_id, partition=partition)
        await ledger.claim(begun)
        await asyncio.sleep(turn * every)
        ended = time.time()
        outcome = Entry(
            work_id,
            State.SUCCESS,
            call,
            "ta-played",
            work_id,
            label="bench.task",
            partition=partition,
            finished_at=ended,
            final_state="success",
        )
        await ledger.finish(outcome)
        return work_id, ended, time.time()

    return list(await asyncio.gather(*(one(turn, work_id) for turn, work_id in enumerate(work_ids))))


@app.function(max_containers=1, timeout=24 * 3600, scaledown_window=20 * 60)
async def tell(work_ids: list[str], partition: str) -> None:
    """Send the events of these work ids, many at once, without a ledger: only for the executor's side."""
    import time

    from modalflow.protocol.messages import Entry, State

    events = modal.Queue.from_name(NAMES.events)
    for first in range(0, len(work_ids), 500):
        entries = [
            Entry(
                work_id,
                State.SUCCESS,
                "fc-played",
                "ta-played",
                work_id,
                label="bench.task",
                partition=partition,
                finished_at=time.time(),
                final_state="success",
            ).to_json()
            for work_id in work_ids[first : first + 500]
        ]
        await events.put_many.aio(entries, partition=partition)
