"""The answer to a probe: what a container of this worker finds, without claiming, running or recording anything.

The worker's side of `modalflow doctor`. Airflow is inspected in a process forked from the zygote, like a task's
(``run.airflow_probe``). The answer is plain data and holds no variable, token or credential.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
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
from modalflow.support.installation import imported_from, installed
from modalflow.support.linux import most_for_variables
from modalflow.worker.container import Container
from modalflow.worker.zygote.client import ZygoteClient, ZygoteEndedError
from modalflow.worker.zygote.protocol import ForkRequest, ForkResult

#: Seconds that the inspection of Airflow may take, including its import. Findings until then are returned.
INSPECTION_TIMEOUT = 60.0

#: The variables in which Modal describes a container.
_MODAL_FACTS = {"region": "MODAL_REGION", "cloud": "MODAL_CLOUD_PROVIDER", "image": "MODAL_IMAGE_ID"}

#: The beginning of the names of variables with Airflow's options.
_AIRFLOW = "AIRFLOW__"


async def answer_probe(container: Container, submission: Submission) -> dict[str, Any]:
    """Return the findings; raises nothing except a cancellation."""
    began = time.monotonic()
    findings: dict[str, Any] = {
        "time": time.time(),
        "container_id": container.id,
        "worker_version": __version__,
        "imported_from": imported_from(),
        "protocol": PROTOCOL,
        "python_version": platform.python_version(),
        **{name: os.environ.get(variable, "") for name, variable in _MODAL_FACTS.items()},
        "variables": {
            "profile": [name for name in sorted(container.profile_env) if name.startswith(_AIRFLOW)],
            "image": [name for name in sorted(container.variables) if name.startswith(_AIRFLOW)],
        },
        "baked_bundles": sorted(container.dag_bundles.fixed),
        "installed": None if (package := installed()) is None else dataclasses.asdict(package),
        "airflow": {},
        "problem": "",
    }
    try:
        async with container.environment_for(submission) as env:
            findings["airflow"], findings["problem"] = await _inspect(container, env, submission.workload)
    except Exception as error:  # noqa: BLE001  The scheduler would unpickle an exception of a container.
        findings["problem"] = describe(error)
    findings["seconds"] = round(time.monotonic() - began, 3)
    return {"work_id": submission.work_id, "state": "probed", "probe": findings}


async def _inspect(container: Container, env: Mapping[str, str], trial: str | None) -> tuple[dict[str, Any], str]:
    if problem := variables.problem(env, most_for_variables()):
        return {}, f"Nothing can be started in the container: {problem}."
    with tempfile.TemporaryDirectory(prefix="modalflow-probe-", dir=container.home) as folder:
        file = Path(folder, "findings.json")
        request = ForkRequest(
            id=uuid.uuid4().hex, kind=Kind.PROBE, log_file=str(file), log_root=folder, env=env, workload=trial
        )
        problem = ""
        try:
            async with asyncio.timeout(INSPECTION_TIMEOUT):
                zygote = await container.zygote_for(Kind.PROBE, env)
                try:
                    problem = _problem(await zygote.fork(request))
                finally:
                    await _end(zygote, request.id)
        except TimeoutError:
            problem = f"The inspection of Airflow took more than {INSPECTION_TIMEOUT:g} s in the container."
        except ZygoteEndedError as error:
            problem = f"The process that runs workloads died: {error}"
        with contextlib.suppress(OSError, ValueError):
            return json.loads(file.read_text()), problem
        return {}, problem or "The inspection of Airflow found nothing, for an unknown reason."


def _problem(result: ForkResult) -> str:
    if result.outcome is not None and result.outcome.reason:
        return result.outcome.reason
    return "" if result.return_code == 0 else f"The inspection of Airflow ended with {result.return_code}."


async def _end(zygote: ZygoteClient, request_id: str) -> None:
    await zygote.kill(request_id)
    await zygote.wait(request_id)
