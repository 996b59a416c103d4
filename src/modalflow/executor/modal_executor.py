"""ModalExecutor: Airflow's hooks, one short method each. No I/O: that is the engine's, on a thread of its own."""

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
from modalflow.config.settings import Settings
from modalflow.errors import ModalflowError, WorkloadRejectedError
from modalflow.executor.airflow_database import AirflowDatabase
from modalflow.executor.dag_files import in_its_bundle, local_bundles
from modalflow.executor.engine import Engine
from modalflow.executor.mailbox import ENDS, News, NewsKind, Order
from modalflow.executor.modal_api.modal_api import Remote
from modalflow.executor.reporting.dropped_events import DroppedEvents
from modalflow.executor.reporting.publisher import Identity
from modalflow.executor.worker_env import of_containers, workload_env
from modalflow.executor.workload_guard import own_failure
from modalflow.executor.workloads import (
    adoption_of,
    external_id,
    label_of,
    log_path_of_key,
    order_of_command,
    order_of_workload,
    stored_work_id,
)
from modalflow.logs.log_volume import LogVolume
from modalflow.protocol.messages import Entry
from modalflow.reasons import Cause
from modalflow.support import forks, installation
from modalflow.support.described import words_of
from modalflow.support.text import ID, STORED, clean, one_line

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance

#: Final states of which Airflow is told nothing. After the first three it queues the same key again: an outcome would
#: be taken for the next run's; `running` means that somebody else runs the task, whose outcome is the one that counts.
UNTOLD_STATES = frozenset({"deferred", "up_for_reschedule", "awaiting_input", "running"})

#: The most news that one heartbeat tells Airflow of, so that a burst of outcomes does not hold the scheduler up. It
#: does not idle while there are events, so the rest follows at once.
NEWS_AT_ONCE = 400


#: Seconds between two looks of an executor that waits for its end.
END_POLL = 0.1

#: What Airflow's event log calls the reason of a failure, and of a wait.
FAILED_EVENT = "modal executor"
WAITING_EVENT = "waiting for modal"


def is_untold(entry: Entry) -> bool:
    """Whether Airflow is told nothing of this end: it comes back, or is no longer wanted."""
    return entry.final_state in UNTOLD_STATES or entry.cause == Cause.NOT_WANTED.value


def _is_told(news: News) -> bool:
    """Return whether this end of a workload is reported to Airflow."""
    return news.kind is not NewsKind.OVER and (news.entry is None or not is_untold(news.entry))


class ModalExecutor(scheduler.ExecutorCompat, BaseExecutor):
    """Runs every Airflow workload as one call of a deployed Modal Function.

    ``start`` raises what is wrong with the configuration, each error naming the setting and how to mend it. After
    it, no method waits for the network or a file, and ``heartbeat`` raises nothing.
    """

    supports_ad_hoc_ti_run: bool = True
    supports_multi_team: bool = True
    is_production: bool = True
    # `airflow standalone` replaces every executor that says False by LocalExecutor; True has no other effect than that
    # stale DAG bundle versions are cleaned up on the scheduler's host.
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
        self._untold: list[News] = []
        self._delivered: list[str] = []
        self._dropped = DroppedEvents()
        self._logs: LogVolume | None = None

    # --- life ---

    def start(self) -> None:
        """Check the settings and the deployment, and start the engine."""
        settings = self.settings
        forks.import_ahead()  # Airflow may start LocalExecutor next, which forks.
        self._env = self._workload_env(settings)
        self._bundles = local_bundles(
            configuration.dag_bundle_config(self.conf), self.conf.get("core", "dags_folder", fallback="") or ""
        )
        # Under a scheduler alone is there a database of Airflow's at hand, and a reason to ask it.
        database = AirflowDatabase(self._order_again) if self.job_id is not None else None
        queue = configuration.default_queue(self.conf)
        self._engines[""] = engine = Engine(settings, self._open_remote, self._identity(), database, queue)
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
        """The engine that ``start`` made. A forked child has none: its parent's thread talks to Modal, and reads events
        that must not be read twice."""
        return self._engines.get("")

    @cached_property
    def settings(self) -> Settings:
        """The validated settings; the first use raises ConfigError for what is wrong."""
        return Settings.read(self.conf)

    def _order_again(self, ti: TaskInstance) -> Order:
        """The order of a task instance whose scheduler died. Not called on the scheduler's thread."""
        return order_of_workload(scheduler.task_workload(ti, self), ti.key, None, self._env)

    def _open_remote(self) -> Remote:
        return Remote(self._control_plane(), self.settings.names)

    def _control_plane(self) -> control_plane.ControlPlane:
        return control_plane.connect(
            conn_id=self.settings.conn_id, environment=self.settings.environment, hook=configuration.modal_hook
        )

    def _identity(self) -> Identity:
        """Which executor this is, for an operator."""
        settings = tokens.settings_to_compare() | of_containers(self._env)
        job_id, team = getattr(self, "job_id", None), getattr(self, "team_name", None)
        return Identity(str(job_id or ""), str(team or ""), settings, str(installation.problem() or ""))

    def _workload_env(self, settings: Settings) -> Mapping[str, str]:
        """The Airflow configuration that a worker needs, above the variables that the user wants there."""
        return workload_env(settings, self.conf)

    def end(self) -> None:
        """Stop. What runs on Modal goes on where another scheduler can adopt it, and is waited for where nobody could.

        A scheduler calls this at SIGTERM, too: waiting would hold up its restart for as long as the longest task.
        Without one (``dag.test(use_executor=True)``, a program of one's own) what is not waited for is lost.
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
            # Lets go of the entries of what was told last time, before there is nobody to do so.
            self.sync()
            self._engine.stop()
            self.sync()

    # --- workloads ---

    def heartbeat(self) -> None:
        """As BaseExecutor's, but nothing is raised: an exception here would end the scheduler."""
        try:
            super().heartbeat()
        except Exception:
            self.log.exception("The heartbeat failed; the next one continues")
        # The scheduler saves them next, letting go of each before SQLAlchemy, which has weak references only, reads it.
        self._unsaved_events = list(self._task_event_logs)

    def _process_workloads(self, workloads: Sequence[Any]) -> None:
        orders = []
        for workload in workloads:
            key = scheduler.workload_key(self, workload)
            for queued in scheduler.queued_workloads(self):
                queued.pop(key, None)
            self.running.add(key)
            try:
                work_id = scheduler.pre_assigned_id(self, workload)
                workload = in_its_bundle(workload, self._bundles)
                orders.append(order_of_workload(workload, key, work_id, self._env))
            except Exception as error:
                if not isinstance(error, WorkloadRejectedError):
                    self.log.exception("%s could not be submitted", label_of(key))
                self._reject(key, getattr(workload, "log_path", None), error)
        self._submit(orders)

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
        order = order_of_command(key, command, queue, executor_config, self._env)
        self.running.add(key)
        self._submit([order])

    def _submit(self, orders: Sequence[Order]) -> None:
        if not orders:
            return
        if self._engine is None:
            raise ModalflowError(f"{type(self).__name__} was not started in this process; call start() first")
        for order in orders:
            self._origins[order.key] = order.submission.work_id
        self._engine.submit(orders)

    def _reject(self, key: Any, log_path: str | None, error: Exception) -> None:
        reason = clean(words_of(error))
        self.log.error("%s is not submitted: %s", label_of(key), one_line(reason))
        if self._engine is not None:
            self._engine.add_reason(log_path or log_path_of_key(key), reason)
        self._tell_failed(key, reason)

    # --- outcomes ---

    def sync(self) -> None:
        """Tell Airflow what the engine has learnt.

        Of a workload that began and ended since the last time only the begin is told, and the end the next time:
        Airflow keeps one event per key, and only RUNNING's is where it takes the external executor id from.

        What was told last time may leave the ledger now: the scheduler has read the events in between. One that died
        before it did finds the outcome still there, and does not take the work for one that never began.
        """
        if self._engine is None:
            return
        self._engine.revive()
        self._engine.forget(self._delivered)
        self._delivered = []
        begun = self._report_dropped_ids()
        untold, self._untold = [*self._untold, *self._engine.take_news(NEWS_AT_ONCE)], []
        told = []
        for news in untold:
            try:
                if self._take(news, begun):
                    told.append(news)
            except Exception as error:  # The boundary of a workload: the others' news are reported all the same.
                self.log.exception("The %s of %s could not be reported to Airflow", news.kind.name, label_of(news.key))
                self._end_unheard(news, error)
        self._engine.delivered(told)

    def _report_dropped_ids(self) -> set[Any]:
        """Report the ids again that Airflow has not stored, and return their keys: the ends of these have to wait."""
        again = set()
        for key, stored in self._dropped.ids():
            # Events of connection tests always stay there. Not of an earlier submission under the same key.
            if not isinstance(key, TaskInstanceKey):
                continue
            if self._origins.get(key) == stored_work_id(stored) and key not in self.event_buffer:
                self.running_state(key, stored)
                again.add(key)
        return again

    def get_event_buffer(self, dag_ids: Any = None) -> dict[Any, tuple[Any, Any]]:
        """As BaseExecutor's. What a scheduler does not take out of it, it has dropped."""
        events: dict[Any, tuple[Any, Any]] = super().get_event_buffer(dag_ids)
        if self.job_id is not None:
            self._dropped.handed_over(events)
        return events

    def _take(self, news: News, begun: set[Any]) -> bool:
        """Tell Airflow of news, or keep them for the next heartbeat; whether Airflow was told."""
        if news.again:
            self._tell_again(news)
            return False
        current = self._origins.get(news.key) == news.origin
        if news.kind is NewsKind.WAITING:
            if current:
                self.log_task_event(event=WAITING_EVENT, extra=news.reason or "", ti_key=cast(Any, news.key))
            return False
        if news.kind is NewsKind.STARTED:
            begun.add(news.key)
        elif current and news.key in begun:
            self._untold.append(news)
            return False
        else:
            self._delivered.append(news.work_id)
        if current:
            self._tell(news)
        return current

    def _end_unheard(self, news: News, error: Exception) -> None:
        """Fail a workload whose end could not be reported to Airflow in order, so that nothing waits for it forever."""
        if news.kind not in (*ENDS, NewsKind.OVER):
            return
        key: Any = news.key
        self._origins.pop(key, None)
        try:
            if _is_told(news):
                if key in self.running or key not in self.event_buffer:
                    scheduler.report_failed(self, key, own_failure(error, "reporting its end to Airflow"))
            else:
                self.running.discard(key)
        except Exception:  # There is nothing left to try.
            self.log.exception("%s could not be failed", label_of(key))

    def _tell_again(self, news: News) -> None:
        """Airflow took no notice of a failure; unless the key is in use again, that is all there is to say of it."""
        key: Any = news.key
        if key not in self.running and not any(key in queued for queued in scheduler.queued_workloads(self)):
            self.fail(key, news.reason)

    def _tell(self, news: News) -> None:
        key: Any = news.key
        if news.kind is NewsKind.STARTED:
            self.running_state(key, external_id(news.work_id, news.function_call_id))
            return
        del self._origins[key]
        if news.kind is NewsKind.FAILED:
            self._tell_failed(key, news.reason or "It failed without a reason")
        elif not _is_told(news):
            scheduler.release(self, key)
        else:
            self.success(key, external_id(news.work_id, news.function_call_id))

    def _tell_failed(self, key: Any, reason: str) -> None:
        reason = clean(reason, STORED)
        self.log_task_event(event=FAILED_EVENT, extra=reason, ti_key=key)
        scheduler.report_failed(self, key, reason)

    def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
        """As BaseExecutor's, with text that every database takes. Airflow's event log is no reason to fail anything."""
        try:
            super().log_task_event(event=event, extra=clean(extra, STORED), ti_key=ti_key)
        except Exception:  # What is reported to Airflow by other ways counts.
            self.log.exception("An event of %s could not be added to Airflow's event log", label_of(ti_key))

    # --- what Airflow wants ended ---

    def change_state(self, key: Any, state: Any, info: Any = None, remove_running: bool = True) -> None:
        """As BaseExecutor's, with text that every database takes, as all that this executor reports comes through here.

        A final state that someone else decides on (for a task without a heartbeat, say) also ends the function call.
        """
        if remove_running and self._origins.pop(key, None) is not None and self._engine is not None:
            self._engine.end_call(key, f"it is {state} there, without a report of this executor")
        super().change_state(key, state, None if info is None else clean(info, STORED), remove_running)

    def revoke_task(self, *, ti: TaskInstance) -> None:
        """Take a task back that was queued for too long; Airflow queues it anew."""
        self._let_go(ti.key, "it was queued for longer than [scheduler] task_queued_timeout")

    def fail_connection_test(self, key: Any) -> None:
        """Drop a connection test that took too long."""
        self._let_go(key, "the connection test took too long")

    def _let_go(self, key: Any, reason: str) -> None:
        for queued in scheduler.queued_workloads(self):
            queued.pop(key, None)
        scheduler.release(self, key)
        if self._origins.pop(key, None) is not None and self._engine is not None:
            self._engine.end_call(key, reason)

    # --- other schedulers' work ---

    def try_adopt_task_instances(self, tis: Sequence[TaskInstance]) -> Sequence[TaskInstance]:
        """Take over what a dead scheduler had queued, begun or not. Returned, for Airflow to queue anew, is what has no
        id: nothing on Modal can be known by it."""
        if self._engine is None:
            return tis
        scheduler.load_for_adoption(tis)
        adoptions = []
        unknown = []
        for ti in tis:
            adoption = adoption_of(ti)
            if adoption is None:
                unknown.append(ti)
            elif not any(adoption.key in queued for queued in scheduler.queued_workloads(self)):
                self.running.add(ti.key)
                self._origins[adoption.key] = adoption.work_id
                adoptions.append(adoption)
            # Else Airflow took this very scheduler for dead, and it is about to submit the task.
        self._engine.adopt(adoptions)
        return unknown

    # --- looking in ---

    def get_task_log(self, ti: TaskInstance, try_number: int) -> tuple[list[str], list[str]]:
        """The log of a running task, from an executor that was never started, in Airflow's API server.

        Where Airflow already reads its logs through modalflow there is nothing to add but a source, which keeps Airflow
        from asking the container for a log server.
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
        """The logs Volume as this process reads it: API servers fork, and ``connect`` knows this process's client."""
        control_plane = self._control_plane()
        if self._logs is None or self._logs.control_plane is not control_plane:
            self._logs = LogVolume(control_plane, self.settings.names)
        return self._logs

    def debug_dump(self) -> None:
        """As BaseExecutor's, and the engine's calls."""
        super().debug_dump()  # type: ignore[no-untyped-call]  # untyped in Airflow
        self.log.info("modal engine: %s", self._engine.describe() if self._engine else "not started")
