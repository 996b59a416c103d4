"""Answering a probe: what a container of this worker sees, told without claiming, running or recording anything.

The worker's side of `modalflow doctor`. What a task would see is looked up where a task would be, in a process forked
from the zygote (``worker.airflow_view``). The answer is plain data and holds no variable, token or credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import tempfile
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalflow import __version__
from modalflow.config import variables
from modalflow.protocol.messages import PROTOCOL, Kind, Submission
from modalflow.support.described import describe
from modalflow.worker.container import Container
from modalflow.worker.zygote.client import Nursery, ZygoteEndedError
from modalflow.worker.zygote.processes import most_for_variables
from modalflow.worker.zygote.protocol import Ending, Order

#: Seconds that looking at Airflow may take, its import included. What is known by then is told.
LOOK_TIMEOUT = 60.0

#: Where Modal tells a container what it is.
_MODAL_FACTS = {"region": "MODAL_REGION", "cloud": "MODAL_CLOUD_PROVIDER", "image": "MODAL_IMAGE_ID"}


async def answer(container: Container, submission: Submission) -> dict[str, Any]:
    """What can be seen from here; never raises but for cancellation."""
    began = time.monotonic()
    seen: dict[str, Any] = {
        "time": time.time(),
        "container_id": container.id,
        "worker_version": __version__,
        "protocol": PROTOCOL,
        "python_version": platform.python_version(),
        **{name: os.environ.get(variable, "") for name, variable in _MODAL_FACTS.items()},
        "baked_bundles": sorted(container.dags.fixed),
        "airflow": {},
        "problem": "",
    }
    try:
        seen["airflow"], seen["problem"] = await _as_a_task_sees_it(container, submission)
    except Exception as error:  # noqa: BLE001  The border of the container: what a container raises is unpickled.
        seen["problem"] = describe(error)
    seen["seconds"] = round(time.monotonic() - began, 3)
    return {"work_id": submission.work_id, "state": "probed", "probe": seen}


async def _as_a_task_sees_it(container: Container, submission: Submission) -> tuple[dict[str, Any], str]:
    async with container.env_of(submission) as env:
        return await _look(container, env, submission.workload)


async def _look(container: Container, env: Mapping[str, str], trial: str | None) -> tuple[dict[str, Any], str]:
    if said := variables.problem(env, most_for_variables()):
        return {}, f"Nothing can be started in the container: {said}."
    with tempfile.TemporaryDirectory(prefix="modalflow-probe-", dir=container.home) as folder:
        told = Path(folder, "told.json")
        order = Order(id=uuid.uuid4().hex, kind=Kind.PROBE, segment=str(told), log_root=folder, env=env, workload=trial)
        nursery = await container.nursery_for(Kind.PROBE, env)
        problem = ""
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                problem = _problem(await nursery.run(order))
        except TimeoutError:
            problem = f"Looking at Airflow took more than {LOOK_TIMEOUT:g} s in the container."
        except ZygoteEndedError as error:
            problem = f"The process that runs workloads died: {error}"
        finally:
            await _end(nursery, order.id)
        with contextlib.suppress(OSError, ValueError):
            return json.loads(told.read_text()), problem
        return {}, problem or "Nothing was seen, and nobody knows why."


def _problem(ending: Ending) -> str:
    if ending.outcome is not None and ending.outcome.reason:
        return ending.outcome.reason
    return "" if ending.return_code == 0 else f"The look at Airflow ended with {ending.return_code}."


async def _end(nursery: Nursery, order_id: str) -> None:
    await nursery.kill(order_id)
    await nursery.wait(order_id)
