"""What a task's process is like, beside that of the same task in an interpreter that was started for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modalflow.worker.environment import BASE_LOG_FOLDER
from tests.hostile.interpreter import looked_at, placeless, started_for, supervisor_of
from tests.hostile.looking import variables_of, zygote_of
from tests.inside import asked
from tests.integration.world import DAGS, World

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
    "supervisor: status SigCgt": "one signal more: the notice that its container is being stopped",
}


def in_the_container(world: World) -> dict[str, Any]:
    work = world.task("facts", dag_file="facts.py", env={"FACTS": "/opt/modalflow/logs/facts/facts.log"})
    work.log_with("facts are told")
    container = work.running().container_id
    zygote = zygote_of(container)
    task_instance = json.loads(work.wire["workload"])["ti"]["id"]
    supervisor = asked(container, supervisor_of, zygote, task_instance)
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
    facts = placeless(told | asked(container, looked_at, supervisor), places)
    seen = asked(container, variables_of, zygote)
    assert work.ended().final_state == "success"
    return {"container": container, "workload": work.wire["workload"], "variables": variables, "zygote": seen, **facts}


def in_an_interpreter_of_its_own(ours: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The facts of the same workload there, in the same kernel."""
    told = asked(ours["container"], started_for, dict(ours), str(folder), str(DAGS))
    return placeless(told["facts"], told["places"])


def apart(ours: Any, theirs: Any) -> Any:
    """Two values; of two tables what is not the same in both."""
    if not isinstance(ours, dict) or not isinstance(theirs, dict):
        return ours, theirs
    names = ours.keys() | theirs.keys()
    return {name: (ours.get(name), theirs.get(name)) for name in names if ours.get(name) != theirs.get(name)}
