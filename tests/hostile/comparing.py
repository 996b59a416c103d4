"""What a task's process is like, beside that of the same task in an interpreter that was started for it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from modalflow.worker.environment import BASE_LOG_FOLDER, BUNDLE_LIST, BUNDLE_STORAGE
from tests.hostile.looking import children, facts_of_kernel, variables_of, zygote_of
from tests.integration.world import COLD, DAGS, Work, World
from tests.support import descendants, wait_until

#: What may differ, and why. Everything else is the same.
ALLOWED = {
    "task: status CapEff": "a container has fewer rights than a root outside of it",
    "supervisor: status CapEff": "a container has fewer rights than a root outside of it",
    "supervisor: files": "one pipe more, for the outcome",
    "argv": "the zygote's, of which the arguments are gone",
    "main": "the zygote's module",
    "frozen": "the collector leaves alone what all forks share",
    "modules": "more, imported beforehand",
    "task: files": "a process that was prepared has not inherited its supervisor's log",
    "dies with": "a task ends with its supervisor",
    "handlers": "no handler of Airflow's for segmentation faults: it would make them last for ever",
    "task: status SigCgt": "the same",
}

#: Beginnings of variables that Airflow itself sets in a task's process.
_ADDED_BY_AIRFLOW = ("_AIRFLOW", "AIRFLOW_CTX", "AIRFLOW__DATABASE__SQL_", "AIRFLOW__CORE__SQL_")


def in_the_container(world: World) -> dict[str, Any]:
    work = world.task("facts", dag_file="facts.py", env={"FACTS": "/opt/modalflow/logs/facts/facts.log"})
    work.log_with("facts are told")
    zygote = zygote_of(work.running().container_id)
    [supervisor] = [pid for pid in children(zygote) if Path(f"/proc/{pid}/cmdline").read_bytes() and is_of(work, pid)]
    [text] = world.logs.read("facts")[1]
    told: dict[str, Any] = json.loads(text)
    variables = told["environment"]
    places = {
        "/opt/modalflow/logs/facts/facts.log": "<facts>",
        "/opt/modalflow/bundles/tests": "<dags>",
        variables["AIRFLOW_HOME"]: "<home>",
        variables[BASE_LOG_FOLDER]: "<logs>",
        variables["TMPDIR"]: "<tmp>",
    }
    with looked_at(supervisor) as kernel:
        facts = placeless(told | kernel, places)
    assert work.ended().final_state == "success"
    return {"workload": work.wire["workload"], "variables": variables, "zygote": variables_of(zygote), **facts}


def is_of(work: Work, supervisor: int) -> bool:
    """Whether a supervisor runs this work, by the title that Airflow gives it."""
    return json.loads(work.wire["workload"])["ti"]["id"] in Path(f"/proc/{supervisor}/cmdline").read_text()


def in_an_interpreter_of_its_own(ours: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    places = {name: folder / name for name in ("home", "logs", "tmp")}
    for place in places.values():
        place.mkdir()
    facts = folder / "facts.json"
    variables = {name: value for name, value in ours["variables"].items() if not name.startswith(_ADDED_BY_AIRFLOW)}
    home = variables["AIRFLOW_HOME"]
    variables |= {
        "AIRFLOW_HOME": str(places["home"]),
        BUNDLE_STORAGE: variables[BUNDLE_STORAGE].replace(home, str(places["home"])),
        BUNDLE_LIST: variables[BUNDLE_LIST].replace("/opt/modalflow/bundles/tests", str(DAGS)),
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
        with looked_at(process.pid) as kernel:
            told = json.loads(facts.read_text()) | kernel
        process.communicate(timeout=COLD)
    back = {str(places[name]): f"<{name}>" for name in places} | {str(facts): "<facts>", str(DAGS): "<dags>"}
    back["/opt/modalflow/bundles/tests"] = "<dags>"
    return placeless(told, back)


@contextmanager
def looked_at(supervisor: int) -> Iterator[dict[str, Any]]:
    """What the kernel knows of a supervisor and its task, which goes on afterwards."""
    [task] = descendants(supervisor)
    kernel = {f"supervisor: {name}": value for name, value in facts_of_kernel(supervisor).items()}
    yield kernel | {f"task: {name}": value for name, value in facts_of_kernel(task).items()}
    os.kill(task, signal.SIGUSR1)


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


def apart(ours: Any, theirs: Any) -> Any:
    """Two values; of two tables what is not the same in both."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ours, theirs
    names = ours.keys() | theirs.keys()
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
