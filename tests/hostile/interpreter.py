"""A task in an interpreter that was started for it alone, and a look at its processes. Runs in containers as well."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalflow.worker.environment import BASE_LOG_FOLDER, BUNDLE_LIST, BUNDLE_STORAGE
from tests.hostile.looking import children, facts_of_kernel
from tests.support import descendants, wait_until

#: Seconds for a new interpreter to import Airflow on a busy machine.
COLD = 120.0

#: Beginnings of variables that Airflow itself sets in a task's process.
_ADDED_BY_AIRFLOW = ("_AIRFLOW", "AIRFLOW_CTX", "AIRFLOW__DATABASE__SQL_", "AIRFLOW__CORE__SQL_")


def started_for(ours: Mapping[str, Any], into: str, dags: str) -> dict[str, Any]:
    """Run a workload in a new interpreter; return the facts, and the places in them."""
    folder = Path(into)
    places = {name: folder / name for name in ("home", "logs", "tmp")}
    for place in places.values():
        place.mkdir(parents=True)
    facts = folder / "facts.json"
    variables = {name: value for name, value in ours["variables"].items() if not name.startswith(_ADDED_BY_AIRFLOW)}
    home = variables["AIRFLOW_HOME"]
    variables |= {
        "AIRFLOW_HOME": str(places["home"]),
        BUNDLE_STORAGE: variables[BUNDLE_STORAGE].replace(home, str(places["home"])),
        BUNDLE_LIST: variables[BUNDLE_LIST].replace("/opt/modalflow/bundles/tests", dags),
        BASE_LOG_FOLDER: str(places["logs"]),
        "TMPDIR": str(places["tmp"]),
        "FACTS": str(facts),
    }
    workload = folder / "workload.json"
    workload.write_text(ours["workload"])
    arguments = ["-m", "airflow.sdk.execution_time.execute_workload", "--json-path", str(workload)]
    with subprocess.Popen(
        [sys.executable, *arguments],
        env=variables,
        cwd=ours["supervisor: working directory"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        wait_until(lambda: facts.exists() and facts.read_text().endswith("}"), COLD, "the facts to be told")
        told = json.loads(facts.read_text()) | looked_at(process.pid)
        process.communicate(timeout=COLD)
    back = {str(places[name]): f"<{name}>" for name in places} | {str(facts): "<facts>", dags: "<dags>"}
    back["/opt/modalflow/bundles/tests"] = "<dags>"
    return {"facts": told, "places": back}


def supervisor_of(zygote: int, task_instance: str) -> int:
    """The one for this work, by the title that Airflow gives it."""
    titles = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in children(zygote)}
    [supervisor] = [pid for pid, title in titles.items() if task_instance in title]
    return supervisor


def looked_at(supervisor: int) -> dict[str, Any]:
    """What the kernel knows of a supervisor and its task, which goes on afterwards."""
    [task] = descendants(supervisor)
    kernel = {f"supervisor: {name}": value for name, value in facts_of_kernel(supervisor).items()}
    kernel |= {f"task: {name}": value for name, value in facts_of_kernel(task).items()}
    os.kill(task, signal.SIGUSR1)
    return kernel


def placeless(told: Mapping[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    """The facts without addresses, numbers of files, and folders."""
    text = json.dumps(told, default=str)
    for place in sorted(places, key=len, reverse=True):
        text = text.replace(place, places[place])
    for pattern, replacement in (
        (r"0x[0-9a-f]+", "0x"),
        (r"StreamHandler \d+", "StreamHandler"),
        (r"Handler \d+", "Handler"),
        (r"unusual_prefix_[0-9a-f]+", "unusual_prefix"),
        (r"started \d+", "started"),
    ):
        text = re.sub(pattern, replacement, text)
    found: dict[str, Any] = json.loads(text)
    return found
