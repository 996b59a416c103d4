"""From an Airflow workload, or a raw command, to a request. Pure: serialises and checks, reads no file."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow import __version__
from modalflow.config import variables
from modalflow.errors import ConfigError, WorkloadRejectedError
from modalflow.executor.mailbox import Adoption, SubmitRequest, WorkloadKey
from modalflow.executor.submission.resources import TaskRequest, read_executor_config
from modalflow.names import TaskTry, short
from modalflow.protocol.messages import Kind, Submission

#: What a function call id may look like. Airflow before 3.3 stores 250 characters of it and the work id together.
_IDS = re.compile(r"[\w.:+=-]{1,200}", re.ASCII)

_UNSAFE = re.compile(r"[^\w.=+:@-]+")

_LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"


def task_try_of(key: Any) -> TaskTry | None:
    """Return which try of a task instance a workload key is; None for callbacks, connection tests and other keys."""
    if isinstance(key, TaskInstanceKey):
        return TaskTry(key.dag_id, key.task_id, key.run_id, key.map_index, key.try_number)
    return None


def label_of(key: Any) -> str:
    """Return what a human calls a workload key."""
    task = task_try_of(key)
    return task.label if task else f"{type(key).__name__.removesuffix('Key')} {getattr(key, 'id', key)}"


def log_path_of_key(key: Any) -> str:
    """Return the log of a key that came without a path: for task instances, Airflow's own default layout."""
    if task := task_try_of(key):
        return task.log_path
    name = str(getattr(key, "id", key))
    safe = _UNSAFE.sub("_", name)
    # Keys that differ only in characters that a file name cannot have must not share a log.
    return f"{type(key).__name__.removesuffix('Key').lower()}/{safe}{'' if safe == name else '~' + short(name)}.log"


def request_of_workload(workload: Any, key: WorkloadKey, work_id: str | None, env: Mapping[str, str]) -> SubmitRequest:
    """Return the request for a workload of Airflow's; raise WorkloadRejectedError if its executor_config is wrong.

    ``key`` is what Airflow knows it by, ``work_id`` what Airflow has stored for this submission, if anything.
    """
    ti = getattr(workload, "ti", None)
    named_by = key if ti is None else ti.key
    request = read_executor_config(getattr(ti, "executor_config", None))
    queue = getattr(ti, "queue", None) if ti is not None else getattr(workload, "queue", None)
    submission = Submission(
        work_id=work_id or str(uuid.uuid4()),
        kind=Kind.WORKLOAD,
        log_path=getattr(workload, "log_path", None) or log_path_of_key(named_by),
        partition="",
        label=label_of(named_by),
        workload=workload.model_dump_json(),
        note=request.note,
        **_env(env, request),
        submitted_at=time.time(),
        executor_version=__version__,
    )
    return _submit_request(key, submission, queue, request)


def request_of_command(
    key: WorkloadKey,
    command: Sequence[str] | str,
    queue: str | None,
    executor_config: Mapping[str, Any] | None,
    env: Mapping[str, str],
) -> SubmitRequest:
    """Return the request for a raw command: arguments, or one text for the shell."""
    if isinstance(command, str):
        checked: tuple[str, ...] | str = command
    else:
        checked = tuple(command)
        if not all(isinstance(part, str) for part in checked):
            raise WorkloadRejectedError(f"Command {command!r} of {label_of(key)}: expected texts only")
    if not checked or checked == ("",):
        raise WorkloadRejectedError(f"Command of {label_of(key)} is empty; expected a program and its arguments")
    request: TaskRequest = read_executor_config(executor_config)
    submission = Submission(
        work_id=str(uuid.uuid4()),
        kind=Kind.COMMAND,
        log_path=log_path_of_key(key),
        partition="",
        label=label_of(key),
        command=checked,
        task=task_try_of(key),
        note=request.note,
        **_env(env, request),
        submitted_at=time.time(),
        executor_version=__version__,
    )
    return _submit_request(key, submission, queue, request)


def _submit_request(key: WorkloadKey, submission: Submission, queue: str | None, request: TaskRequest) -> SubmitRequest:
    return SubmitRequest(
        key,
        submission,
        request.resources,
        queue,
        request.profile,
        request.submit_attempts,
        terms=request.terms,
    )


def _env(env: Mapping[str, str], request: TaskRequest) -> dict[str, Any]:
    """Return the variables of a submission, and which of them are the task's own."""
    if not request.env:
        # One dict is shared by all tasks that add nothing: ten thousand copies would be most of their memory.
        return {"env": env}
    together = {**env, **request.env}
    try:
        variables.check("the environment of the task", together)
    except ConfigError as error:
        raise WorkloadRejectedError(str(error)) from error
    return {"env": together, "own_env": tuple(request.env)}


def external_id(work_id: str, function_call_id: str | None) -> str:
    """Return what Airflow stores for a submission: the function call id for humans, and the work id to adopt by."""
    if not function_call_id or not _IDS.fullmatch(function_call_id):
        return work_id
    return f"{function_call_id}/{work_id}"


def stored_work_id(stored: str | None) -> str:
    """Return the work id in what Airflow stores for a submission."""
    return str(stored or "").rpartition("/")[2]


def adoption_of(ti: Any) -> Adoption | None:
    """Return the work of a task instance that another scheduler queued; None if it never got an id."""
    stored = ti.external_executor_id
    if not stored:
        return None
    function_call_id = str(stored).rpartition("/")[0]
    try:
        request = read_executor_config(getattr(ti, "executor_config", None))
    except WorkloadRejectedError:
        # Its scheduler accepted it. Only the estimate of its cost needs this.
        request = TaskRequest()
    return Adoption(
        key=ti.key,
        work_id=stored_work_id(stored),
        function_call_id=function_call_id or None,
        log_path=log_path_of_key(ti.key),
        label=label_of(ti.key),
        resources=request.resources,
        airflow_queue=getattr(ti, "queue", None),
        profile=request.profile,
    )


def local_bundles(listed: str, dags_folder: str) -> dict[str, PurePath]:
    """Return the local bundles in the text of ``[dag_processor] dag_bundle_config_list``: name → folder.

    A text that is no such list has none; Airflow itself reports that.
    """
    try:
        bundles: Any = json.loads(listed)
    except ValueError:
        return {}
    return {
        str(bundle["name"]): PurePath((bundle.get("kwargs") or {}).get("path") or dags_folder)
        for bundle in (bundles if isinstance(bundles, list) else ())
        if isinstance(bundle, dict) and bundle.get("classpath") == _LOCAL_BUNDLE and bundle.get("name")
    }


def in_its_bundle(workload: Any, bundles: Mapping[str, PurePath]) -> Any:
    """Return the workload with the bundle of its DAG file in place of an absolute path, which a worker does not have.

    ``dag.test(use_executor=True)`` names the file by its path on this machine, and a bundle that need not exist.
    """
    file = PurePath(getattr(workload, "dag_rel_path", ""))
    if not file.is_absolute():
        return workload
    for name, folder in bundles.items():
        if file.is_relative_to(folder):
            known = workload.bundle_info.model_copy(update={"name": name, "version": None})
            return workload.model_copy(update={"dag_rel_path": file.relative_to(folder), "bundle_info": known})
    return workload
