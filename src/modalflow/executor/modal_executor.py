"""ModalExecutor: Airflow's hooks, one short method each. No I/O: the engine does that on a thread of its own."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar, cast

from airflow.executors.base_executor import BaseExecutor
from airflow.models.taskinstancekey import TaskInstanceKey

from modalflow import airflow_logging, control_plane
from modalflow.airflow_compat import configuration, scheduler, task_logs, tokens
from modalflow.airflow_home.host_home import collect
from modalflow.config.settings import Settings
from modalflow.errors import ModalflowError, WorkloadRejectedError
from modalflow.executor.airflow_database import AirflowDatabase
from modalflow.executor.engine import Engine
from modalflow.executor.lifecycle.outcomes import internal_failure
from modalflow.executor.mailbox import ENDS, SubmitRequest, Update, UpdateKind
from modalflow.executor.modal_api.modal_api import ApiObserver, ModalApi
from modalflow.executor.reporting.dropped_events import DroppedEvents
from modalflow.executor.reporting.publisher import Identity
from modalflow.executor.worker_env import comparable_settings, resolved, workload_env
from modalflow.executor.workloads import (
    adoption_of,
    external_id,
    in_its_bundle,
    label_of,
    local_bundles,
    log_path_of_key,
    request_of_command,
    request_of_workload,
)
from modalflow.logs.log_volume import LogVolume
from modalflow.support import forks, installation
from modalflow.support.described import words_of
from modalflow.support.text import ID, STORED, clean, one_line

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

#: The most updates that one heartbeat reports to Airflow, so that a burst of outcomes does not hold up the scheduler.
#: It does not idle while there are events, so the next heartbeat follows at once.
UPDATES_AT_ONCE = 400

#: Seconds between two checks of an executor that waits for its workloads to end.
END_POLL = 0.1

#: What Airflow's event log calls the reason of a failure, and what is an entry there and no event of the executor.
FAILED_EVENT, WAITING_EVENT, BUDGET_EVENT = "modal executor", "waiting for modal", "modal budget"
NOTED_EVENTS = {UpdateKind.WAITING: WAITING_EVENT, UpdateKind.OVER_BUDGET: BUDGET_EVENT}


class ModalExecutor(scheduler.ExecutorCompat, BaseExecutor):
    """Runs every Airflow workload as one call of a deployed Modal Function.

    ``start`` raises an error for what is wrong with the configuration, naming the setting and how to fix it. After
    it, no method waits for the network or a file, and ``heartbeat`` raises nothing.
    """

    supports_ad_hoc_ti_run: bool = True
    supports_multi_team: bool = True
    is_production: bool = True
    # `airflow standalone` replaces every executor that has False here by LocalExecutor. The only other effect of True
    # is that stale DAG bundle versions are removed from the scheduler's host.
    is_local: bool = True
    serve_logs: bool = False
    pre_assigns_external_executor_id: ClassVar[bool] = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._engines: forks.PerProcess[str, Engine] = forks.PerProcess()
        self._env: Mapping[str, str] = {}
        self._bundles: Mapping[str, PurePath] = {}
        self._origins: dict[Any, str] = {}
        self._unsaved_events: list[Any] = []
        self._unreported: list[Update] = []
        self._delivered: list[str] = []
        self._dropped = DroppedEvents(TaskInstanceKey)
        self._logs: LogVolume | None = None

    def start(self) -> None:
        """Check the settings and the deployment, and start the engine."""
        settings = resolved(self.settings, self.conf)
        forks.import_ahead()  # Airflow may start LocalExecutor next, which forks.
        self._env = workload_env(settings, self.conf)
        dags_folder = self.conf.get("core", "dags_folder", fallback="") or ""
        self._bundles = local_bundles(configuration.dag_bundle_config(self.conf), dags_folder)
        # Only a scheduler has Airflow's database, and a reason to ask it.
        database = AirflowDatabase(self._request_again) if self.job_id is not None else None
        queue = configuration.default_queue(self.conf)
        home = collect(self.conf, getattr(self, "team_name", None))
        self._engines[""] = engine = Engine(settings, self._open_api, self._identity(), database, queue, home)
        engine.start()
        if (problem := installation.problem()) is not None:
            self.log.warning("%s", problem)
        if task_logs.remote_task_log() is None:
            self.log.warning(
                "Airflow will not show the logs of ended tasks, because no remote task log is configured. Set "
                "[logging] logging_config_class = modalflow.airflow_logging.LOGGING_CONFIG for every Airflow component."
            )

    @property
    def _engine(self) -> Engine | None:
        """The engine that ``start`` made. A forked child has none: its parent's thread reads the events, which must not
        be read twice."""
        return self._engines.get("")

    @cached_property
    def settings(self) -> Settings:
        """The validated settings; the first use raises ConfigError if one is invalid."""
        return Settings.read(self.conf)

    def _request_again(self, ti: TaskInstance) -> SubmitRequest:
        """Return the request of a task instance whose scheduler died. Not called on the scheduler's thread."""
        return request_of_workload(scheduler.task_workload(ti, self), ti.key, None, self._env)

    def _open_api(self, observer: ApiObserver) -> ModalApi:
        return ModalApi(self._control_plane(), self.settings.names, observer)

    def _control_plane(self) -> control_plane.ControlPlane:
        conn_id, environment = self.settings.conn_id, self.settings.environment
        return control_plane.connect(conn_id=conn_id, environment=environment, hook=configuration.modal_hook)

    def _identity(self) -> Identity:
        """Return what identifies this executor to an operator."""
        settings = tokens.settings_to_compare() | comparable_settings(self._env)
        job_id, team = getattr(self, "job_id", None), getattr(self, "team_name", None)
        return Identity(str(job_id or ""), str(team or ""), settings, str(installation.problem() or ""))

    def end(self) -> None:
        """Stop. Under a scheduler, what runs on Modal goes on for another one to adopt; otherwise, wait for its end.

        A scheduler also calls this at SIGTERM: waiting would hold up its restart for as long as the longest task.
        Without a scheduler (``dag.test(use_executor=True)``, your own program) no one would report the outcome.
        """
        if self.job_id is None and self._engine is not None:
            if self.running:
                self.log.info("Waiting for %s workloads on Modal", len(self.running))
            while self.running:
                self.sync()
                time.sleep(END_POLL)
        self.terminate()

    def terminate(self) -> None:
        """Stop at once. What runs on Modal goes on, for another scheduler to adopt."""
        if self._engine is not None:
            # Removes the entries of what was reported last time, while there is still an engine to do so.
            self.sync()
            self._engine.stop()
            self.sync()

    # --- workloads ---

    def heartbeat(self) -> None:
        """Do as BaseExecutor does, but raise nothing: an exception here would end the scheduler."""
        try:
            super().heartbeat()
        except Exception:
            self.log.exception("The heartbeat failed; the next one goes on")
        # The scheduler saves them next. It drops each before SQLAlchemy, which has only weak references, has read it.
        self._unsaved_events = list(self._task_event_logs)

    def _process_workloads(self, workloads: Sequence[Any]) -> None:
        requests = []
        for workload in workloads:
            key = scheduler.workload_key(self, workload)
            for queued in scheduler.queued_workloads(self):
                queued.pop(key, None)
            self.running.add(key)
            try:
                work_id = scheduler.pre_assigned_id(self, workload)
                workload = in_its_bundle(workload, self._bundles)
                requests.append(request_of_workload(workload, key, work_id, self._env))
            except Exception as error:
                if not isinstance(error, WorkloadRejectedError):
                    self.log.exception("%s could not be submitted", label_of(key))
                self._reject(key, getattr(workload, "log_path", None), error)
        self._submit(requests)

    def execute_async(
        self,
        key: Any,
        command: Sequence[str] | str,
        queue: str | None = None,
        executor_config: Mapping[str, Any] | None = None,
    ) -> None:
        """Submit a raw command: a list of arguments, or one text for the shell. Its exit code is its outcome.

        Raises WorkloadRejectedError for a command or an ``executor_config`` that cannot be submitted.
        """
        request = request_of_command(key, command, queue, executor_config, self._env)
        self.running.add(key)
        self._submit([request])

    def _submit(self, requests: Sequence[SubmitRequest]) -> None:
        if not requests:
            return
        if self._engine is None:
            raise ModalflowError(f"{type(self).__name__} was not started in this process; call start() first")
        for request in requests:
            self._origins[request.key] = request.draft.work_id
        self._engine.submit(requests)

    def _reject(self, key: Any, log_path: str | None, error: Exception) -> None:
        reason = clean(words_of(error))
        self.log.error("%s is not submitted: %s", label_of(key), one_line(reason))
        if self._engine is not None:
            self._engine.add_reason(log_path or log_path_of_key(key), reason)
        self._report_failed(key, reason)

    # --- outcomes ---

    def sync(self) -> None:
        """Report to Airflow what the engine has learnt.

        If a workload began and ended since the last time, only its begin is reported, and its end the next time:
        Airflow keeps one event per key, and takes the external executor id from RUNNING's only.

        The outcomes that were reported last time can leave the ledger now: the scheduler has read the events in
        between. If it died before that, its successor finds the outcome, and does not take the work for unbegun.
        """
        if self._engine is None:
            return
        self._engine.revive()
        self._engine.forget(self._delivered)
        self._delivered = []
        updates, self._unreported = [*self._unreported, *self._engine.take_updates(UPDATES_AT_ONCE)], []
        # The ends of workloads whose id is reported again wait for the next heartbeat.
        begun = set()
        for key, stored in self._dropped.ids(self._origins, self.event_buffer):
            begun.add(key)
            self.running_state(key, stored)
        reported = []
        for update in updates:
            try:
                if self._report(update, begun):
                    reported.append(update)
            except Exception as error:  # The boundary of a workload: the others' updates are reported all the same.
                name = update.kind.name
                self.log.exception("The %s of %s could not be reported to Airflow", name, label_of(update.key))
                self._end_unreported(update, error)
        self._engine.delivered(reported)

    def get_event_buffer(self, dag_ids: Any = None) -> dict[Any, tuple[Any, Any]]:
        """Return what BaseExecutor's returns. Airflow drops the events that a scheduler leaves in it."""
        events: dict[Any, tuple[Any, Any]] = super().get_event_buffer(dag_ids)
        if self.job_id is not None:
            self._dropped.handed_over(events)
        return events

    def _report(self, update: Update, begun: set[Any]) -> bool:
        """Report an update to Airflow, or keep it for the next heartbeat; return whether it was reported."""
        if update.repeated:
            self._fail_again(update)
            return False
        current = self._origins.get(update.key) == update.origin
        if (event := NOTED_EVENTS.get(update.kind)) is not None:
            if current:
                self.log_task_event(event=event, extra=update.reason or "", ti_key=cast(Any, update.key))
            return False
        if update.kind is UpdateKind.STARTED:
            begun.add(update.key)
        elif current and update.key in begun:
            self._unreported.append(update)
            return False
        else:
            self._delivered.append(update.work_id)
        if current:
            self._report_current(update)
        return current

    def _end_unreported(self, update: Update, error: Exception) -> None:
        """Fail a workload whose end could not be reported in order, so that nothing waits for it forever."""
        if update.kind not in (*ENDS, UpdateKind.OVER):
            return
        key: Any = update.key
        self._origins.pop(key, None)
        try:
            if update.is_for_airflow:
                if key in self.running or key not in self.event_buffer:
                    scheduler.report_failed(self, key, internal_failure(error, "reporting its end to Airflow"))
            else:
                self.running.discard(key)
        except Exception:  # There is nothing left to try.
            self.log.exception("%s could not be failed", label_of(key))

    def _fail_again(self, update: Update) -> None:
        """Report a failure again that Airflow did not act on, unless the key is in use again."""
        key: Any = update.key
        if key not in self.running and not any(key in queued for queued in scheduler.queued_workloads(self)):
            self.fail(key, update.reason)

    def _report_current(self, update: Update) -> None:
        """Report an update about the newest submission of its key."""
        key: Any = update.key
        if update.kind is UpdateKind.STARTED:
            self.running_state(key, external_id(update.work_id, update.function_call_id))
            return
        del self._origins[key]
        if update.kind is UpdateKind.FAILED:
            self._report_failed(key, update.reason or "It failed without a reason")
        elif not update.is_for_airflow:
            scheduler.release(self, key)
        else:
            self.success(key, external_id(update.work_id, update.function_call_id))

    def _report_failed(self, key: Any, reason: str) -> None:
        reason = clean(reason, STORED)
        self.log_task_event(event=FAILED_EVENT, extra=reason, ti_key=key)
        scheduler.report_failed(self, key, reason)

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """Do as BaseExecutor does, with text that every database accepts; an error of the event log fails nothing."""
        try:
            super().log_task_event(event=event, extra=clean(extra, STORED), ti_key=ti_key)
        except Exception:  # The outcome reaches Airflow in another way.
            self.log.exception("An event of %s could not be added to Airflow's event log", label_of(ti_key))

    # --- what Airflow wants ended ---

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """Do as BaseExecutor does, with text that every database accepts: all that is reported passes through here.

        A final state that Airflow decides on, such as that of a task without a heartbeat, also ends the function call.
        """
        if remove_running and self._origins.pop(key, None) is not None and self._engine is not None:
            self._engine.revoke(key, f"Airflow set it to {state}, which this executor did not report")
        super().change_state(key, state, None if info is None else clean(info, STORED), remove_running)

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Revoke a task that was queued for too long; Airflow queues it again."""
        self._revoke(ti.key, "it was queued for longer than [scheduler] task_queued_timeout")

    def fail_connection_test(self, key: Any) -> None:
        """Drop a connection test that took too long."""
        self._revoke(key, "the connection test took too long")

    def _revoke(self, key: Any, reason: str) -> None:
        for queued in scheduler.queued_workloads(self):
            queued.pop(key, None)
        scheduler.release(self, key)
        if self._origins.pop(key, None) is not None and self._engine is not None:
            self._engine.revoke(key, reason)

    # --- other schedulers' work ---

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over what a dead scheduler had queued, begun or not. Return what has no id, for Airflow to queue again:
        nothing on Modal can have come from it."""
        if self._engine is None:
            return tis
        scheduler.load_for_adoption(tis)
        adoptions, unknown = [], []
        for ti in tis:
            adoption = adoption_of(ti)
            if adoption is None:
                unknown.append(ti)
            elif not any(adoption.key in queued for queued in scheduler.queued_workloads(self)):
                self.running.add(ti.key)
                self._origins[adoption.key] = adoption.work_id
                adoptions.append(adoption)
            # Otherwise Airflow took this very scheduler for dead, and it is about to submit the task.
        self._engine.adopt(adoptions)
        return unknown

    # --- logs and debugging ---

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """Return the log of a running task. Airflow's API server calls this on an executor that was never started.

        If Airflow already reads its logs through modalflow, return only a source, which keeps Airflow from asking the
        container for a log server.
        """
        where = one_line(ti.hostname or "", ID)
        source = f"Running on Modal in {where}" if where else "Waiting for a container on Modal"
        if airflow_logging.is_in_use():
            return [source], []
        key = TaskInstanceKey(ti.dag_id, ti.task_id, ti.run_id, try_number, ti.map_index)
        try:
            sources, texts = self._log_volume.read(log_path_of_key(key))
        except ModalflowError as error:
            return [source, one_line(error)], []
        return [source, *sources], texts

    @property
    def _log_volume(self) -> LogVolume:
        """The logs Volume, with this process's client: API servers fork."""
        control_plane = self._control_plane()
        if self._logs is None or self._logs.control_plane is not control_plane:
            self._logs = LogVolume(control_plane, self.settings.names)
        return self._logs

    def debug_dump(self) -> None:
        """Log what BaseExecutor logs, and the engine's calls."""
        super().debug_dump()  # type: ignore[no-untyped-call]  # untyped in Airflow
        self.log.info("modal engine: %s", self._engine.describe() if self._engine else "not started")
