"""The app that the executor is timed with: a Function that takes what is submitted, and a container that plays workers.

Ten thousand real containers do not fit on a machine. So one stub input holds the only container of ``run-default`` for
ever, and whatever else the executor submits is queued; ``play`` says of it what a worker would, with the worker's own
code for it (``worker.ledger``), from a real container.
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
    """Be the worker of these work ids, one of which ends every so many seconds.

    Returns for each the moment at which its work had ended, and the one at which its event was accepted, by the
    machine's clock, which the executor shares.
    """
    import asyncio
    import time

    from modalflow.protocol.messages import Entry, State
    from modalflow.worker.ledger import Ledger

    ledger = Ledger(modal.Dict.from_name(NAMES.ledger), modal.Queue.from_name(NAMES.events))
    # One that runs: who looks at silent work asks Modal what became of it.
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
    """Send the events of these work ids, many at once, and write no ledger: where only the executor is looked at."""
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
