"""One try of a task again, on a local control plane of its own, without any change in Airflow.

The executor, the worker and the container runtime are those of a real run. Airflow's Execution API is a stand-in.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.airflow_compat.reading import task_instances
from modalflow.airflow_compat.reading.deferrals import fire
from modalflow.airflow_compat.reading.execution_api import ExecutionApiReads, run_context
from modalflow.airflow_compat.reading.task_instances import TaskTryRecord
from modalflow.airflow_compat.task_logs import other_executor_of
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.config.settings import Settings
from modalflow.config.variables import set_variables
from modalflow.cost.usage import Reserved
from modalflow.emulator.containers.capacity import machine_cores, machine_memory_mib
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options
from modalflow.errors import BundleError, ModalflowError
from modalflow.executor.submission.placement import Place
from modalflow.executor.submission.resources import read_executor_config
from modalflow.executor.workloads import log_path_of_key, request_of_workload
from modalflow.names import API_URL_VARIABLE, CONSOLE_VARIABLE, airflow_variable, stored_log_path
from modalflow.operations.single_task.console import Console
from modalflow.operations.single_task.local_worker import LocalWorker, local_worker, make_objects
from modalflow.operations.single_task.profiles import Profiles
from modalflow.operations.single_task.rendering import placement_of
from modalflow.operations.single_task.stand_in import Instance, Kept, StandIn
from modalflow.operations.site import open_site
from modalflow.operations.task_logs import TaskLog
from modalflow.support.described import describe
from modalflow.support.text import one_line
from modalflow.worker.deploy.deployment import prepare

#: The Airflow connection of a replay: it leads to the local control plane.
_CONN_ID = "modalflow_replay"
#: Seconds between two reads of the log.
_PAUSE = 0.3

#: States in which another process may be running the try.
RUNNING_STATES = frozenset({"running", "restarting", "deferred", "awaiting_input"})


class NotReplayableError(ModalflowError):
    """A try cannot run again here."""


@dataclass(frozen=True)
class Replay:
    """A try that is ready to run again. Nothing has started yet."""

    record: TaskTryRecord
    folder: Path
    """The files of its DAG bundle."""
    place: Place
    local: LocalWorker
    notes: Sequence[str] = ()
    """Differences to the original run, for the user."""

    @property
    def still_runs(self) -> bool:
        """Whether the try has not ended yet."""
        return self.record.is_newest and self.record.state in RUNNING_STATES


@dataclass
class ReplayOutcome:
    """How a replay ended."""

    state: str
    """Airflow's state of the task, as it would have been reported; "failed" if it could not run."""
    reason: str = ""
    kept: Kept = field(default_factory=Kept)


def prepare_replay(record: TaskTryRecord, settings: Settings, conf: Any, profiles: Profiles) -> Replay:
    """Find what a try needs.

    Raises NotReplayableError for a try that never ran, BundleError if its DAG files cannot be had, and
    WorkloadRejectedError as the executor does.
    """
    ti = record.ti
    name = f"{ti.dag_id}.{ti.task_id} run {ti.run_id} try {record.number}"
    if not record.has_started:
        earlier = task_instances.past_tries(ti.dag_id, ti.task_id, ti.run_id, ti.map_index)
        instead = (
            f"Replay an earlier try with --try ({', '.join(map(str, earlier))})."
            if earlier
            else "`modalflow render` shows what it would ask of Modal."
        )
        raise NotReplayableError(f"{name} has not run: its state is {record.state or 'none'}. {instead}")
    folder = _files_of(record)
    request = request_of_workload(task_instances.workload_of(record, ""), ti.key, None, {})
    placement = placement_of(settings, conf)
    place = placement.place(request, profiles.deployment, placement.terms(request, profiles.deployment))
    local = local_worker(place.profile, profiles)
    notes = [profiles.problem] if profiles.problem else []
    if executor := other_executor_of(ti):
        notes.append(f"{executor} ran this try, not ModalExecutor: the replay runs in a container of the profile.")
    if record.version is None:
        notes.append(
            f"DAG bundle {record.bundle!r} keeps no versions for this run: the files are the present ones in {folder}."
        )
    return Replay(record, folder, place, local, [*notes, *local.missing])


def run_replay(
    replay: Replay,
    settings: Settings,
    *,
    env: Mapping[str, str],
    show: Callable[[str], object],
    on_line: Callable[[str], object],
    console: Console | None = None,
    options: Options | None = None,
) -> ReplayOutcome:
    """Run a try again, and return its outcome.

    ``env`` are more variables for the task. ``show`` receives lines about the replay, ``on_line`` those of the task's
    log.
    """
    ti = replay.record.ti
    reads = ExecutionApiReads(ti.id)
    context = run_context(ti.dag_id, ti.run_id, ti)
    indexes = task_instances.map_indexes(ti.dag_id, ti.task_id, ti.run_id)
    instance = Instance(ti.dag_id, ti.run_id, ti.task_id, ti.map_index, indexes)
    with contextlib.ExitStack() as stack:
        stack.callback(reads.close)
        # Airflow builds the API at the first request, which takes seconds.
        pool = stack.enter_context(ThreadPoolExecutor(1, thread_name_prefix="modalflow-stand-in"))
        warm = pool.submit(reads, "GET", "/health", {})
        stand_in = stack.enter_context(StandIn(instance, context, reads))
        variables = {**settings.worker_env, **env}
        if console is not None:
            variables[CONSOLE_VARIABLE] = stack.enter_context(console).variable
        # The SDK's settings come first, so those of this process are restored last.
        stack.enter_context(LocalModal(_options(replay.place, options)))
        stack.enter_context(set_variables(_host_variables(replay, stand_in.url, variables)))
        _deploy(replay, settings, show)
        notes: list[str] = []
        make_objects(read_executor_config(ti.executor_config).resources.plain(), notes)
        for note in notes:
            show(note)
        warm.result()
        with _LocalExecutor(on_line) as executor:
            reason = executor.run(_workload(replay.record, stand_in.token))
            while not reason and stand_in.kept.final_state == "deferred":
                reason = _wait_for_trigger(stand_in, show)
                if not reason and stand_in.kept.final_state == "deferred":
                    reason = executor.run(_workload(replay.record, stand_in.token))
    return ReplayOutcome("failed" if reason else stand_in.kept.final_state or "failed", reason, stand_in.kept)


def _wait_for_trigger(stand_in: StandIn, show: Callable[[str], object]) -> str:
    """Run the trigger of a deferred task, whose event may end it; return why it failed, empty if it has not."""
    deferred = stand_in.kept.states[-1]
    classpath = one_line(deferred.get("classpath") or "")
    show(f"The task is deferred to {classpath}. The trigger runs in this process until its event …")
    try:
        fired = fire(deferred)
    except Exception as error:  # noqa: BLE001  Triggers are users' classes.
        return f"The trigger {classpath} failed in this process: {describe(error)}."
    if fired.final_state:
        stand_in.end(fired.final_state, fired.xcoms)
    else:
        stand_in.resume(fired.next_call)
    return ""


def _files_of(record: TaskTryRecord) -> Path:
    version = "the newest version" if record.version is None else f"version {record.version}"
    try:
        folder = Path(task_instances.files_of_bundle(record.bundle, record.version))
    except Exception as error:
        # Bundles are users' classes.
        raise BundleError(
            f"The DAG files of this try are not available: {version} of DAG bundle {record.bundle!r} could not be "
            f"fetched ({describe(error)}). Restore this version at its source, or replay a try of another run."
        ) from error
    if not folder.is_dir():
        raise BundleError(
            f"The DAG files of this try are not available: {version} of DAG bundle {record.bundle!r} should be in "
            f"{folder}, which does not exist on this machine."
        )
    return folder


def _options(place: Place, given: Options | None) -> Options:
    """Return the options of the control plane, which has room for the task in any case."""
    wanted = Reserved.read(place.granted)
    return Options(
        isolation=given.isolation if given is not None else None,
        max_containers=1,
        cpus=max(machine_cores(), wanted.cpu),
        memory=int(max(machine_memory_mib(), wanted.memory_mib, wanted.limit_mib)),
    )


#: The replay is no run of the task: others must not see events, errors, metrics, traces or e-mails of one, and its log
#: must not be uploaded to the place of the original try's.
_QUIET = {
    airflow_variable("logging", "remote_logging"): "False",
    airflow_variable("logging", "logging_config_class"): "",
    airflow_variable("openlineage", "disabled"): "True",
    airflow_variable("metrics", "statsd_on"): "False",
    airflow_variable("metrics", "statsd_datadog_enabled"): "False",
    airflow_variable("metrics", "otel_on"): "False",
    airflow_variable("sentry", "sentry_on"): "False",
    airflow_variable("traces", "otel_on"): "False",
    # Airflow's own backend is no choice here: with it, Airflow sends by SMTP.
    airflow_variable("email", "email_backend"): "modalflow.worker.unsent_mail.send_email",
}


def _workload(record: TaskTryRecord, token: str) -> Any:
    """Return the workload of a try with _QUIET among its own variables.

    These override `worker_env`, the variables of the Worker and its profile, and the image's, which may set the same.
    """
    made = task_instances.workload_of(record, token)
    config = dict(record.ti.executor_config or {})
    own = dict(config.get("modal") or {})
    config["modal"] = {**own, "env": {**(own.get("env") or {}), **_QUIET}}
    return made.model_copy(update={"ti": made.ti.model_copy(update={"executor_config": config})})


def _host_variables(replay: Replay, url: str, variables: Mapping[str, str]) -> dict[str, str]:
    """Return the settings of this Airflow host that a replay changes, as variables."""
    bundle = {"name": replay.record.bundle, "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(replay.folder)}}

    def ours(option: str) -> str:
        return airflow_variable("modal_executor", option)

    return {
        API_URL_VARIABLE: url,
        airflow_variable("dag_processor", "dag_bundle_config_list"): json.dumps([bundle]),
        f"AIRFLOW_CONN_{_CONN_ID.upper()}": "modal://",
        ours("conn_id"): _CONN_ID,
        ours("environment"): "",
        ours("execution_api"): "direct",
        ours("execution_api_url"): url,
        ours("budgets"): "",
        **_QUIET,
        # Airflow replaces $NAME in every option.
        ours("worker_env"): json.dumps(dict(variables)).replace("$", "\\u0024"),
    }


def _deploy(replay: Replay, settings: Settings, show: Callable[[str], object]) -> None:
    show("Deploying the profile on a local control plane …")
    bundles = {replay.record.bundle: replay.folder}
    # Its own lines are about the deployment of the user.
    prepare(settings.names, bundles=bundles, worker=replay.local.worker, notify=lambda _: None).apply()


class _LocalExecutor:
    """The executor of a replay, as long as a ``with`` block. No scheduler owns it, so it has no database."""

    def __init__(self, on_line: Callable[[str], object]) -> None:
        from modalflow.executor.modal_executor import ModalExecutor

        self._executor: Any = ModalExecutor(parallelism=1)
        self._site = open_site(self._executor.settings)
        self._log: TaskLog | None = None
        self._on_line = on_line

    def __enter__(self) -> _LocalExecutor:
        self._executor.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._executor.running.clear()
        self._executor.terminate()

    def run(self, workload: Any) -> str:
        """Run a workload to its end. Return why it could not run or report its state; empty if it could."""
        executor = self._executor
        if self._log is None:
            path = workload.log_path or log_path_of_key(workload.ti.key)
            self._log = TaskLog(self._site, stored_log_path(path))
        executor._process_workloads([workload])
        while executor.running:
            executor.sync()
            self._pass_on(self._log.new_lines())
            time.sleep(_PAUSE)
        self._pass_on(self._log.new_lines(whole=True))
        state, info = executor.event_buffer.pop(workload.ti.key, (None, None))
        return str(info or "It could not run.") if str(getattr(state, "value", state)) == "failed" else ""

    def _pass_on(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._on_line(line)
