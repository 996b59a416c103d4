"""Every touch of Airflow that depends on its version, behind names that say what is meant.

Cheap to import: Airflow's own modules are imported by the functions that need them, since commands import this one, and
Airflow's logging configuration does while Airflow itself is being imported. Holds no logic of the executor's or the
worker's own. What a version lacks is in LACKING, in a user's words.
"""

from __future__ import annotations

import contextlib
import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

from airflow import __version__ as airflow_version

from modalflow.errors import CredentialsError

if TYPE_CHECKING:
    from airflow.executors.base_executor import BaseExecutor as _Base
    from sqlalchemy.orm import Session
else:
    _Base = object

#: The version of the Airflow that is installed here.
AIRFLOW_VERSION: Final[str] = airflow_version

# Betas and release candidates count as what they become.
_MINOR = tuple(int(part) for part in AIRFLOW_VERSION.split(".")[:2])
AIRFLOW_V_3_1_PLUS: Final[bool] = _MINOR >= (3, 1)
AIRFLOW_V_3_2_PLUS: Final[bool] = _MINOR >= (3, 2)
AIRFLOW_V_3_3_PLUS: Final[bool] = _MINOR >= (3, 3)
AIRFLOW_V_3_4_PLUS: Final[bool] = _MINOR >= (3, 4)

#: What vends `airflow modalflow …`. By name: commands stand above everything else, and are made for the CLI alone.
CLI_COMMANDS: Final = "modalflow.cli.in_airflow.get_cli_commands"

#: What a version of Airflow lacks under ModalExecutor that the next one has: minor version → what.
LACKING: Final[dict[str, tuple[str, ...]]] = {
    "3.0": (
        "a task that waits for its DAG file to appear on the worker",
        "a cleared task that is restarted as soon as it ended, rather than after its heartbeat timeout",
        "the abandoned try of a task in its history, after a scheduler died before anything had begun it",
    ),
    "3.1": (
        "callbacks (deadline alerts) on Modal",
        "an executor for each team",
        "Sentry's integration named by the executor",
        "a work id that Airflow assigns (modalflow stores its own, with one UPDATE for each task)",
        "`airflow modalflow …` where the executor is not configured (`modalflow …` is there)",
    ),
    "3.2": (
        "connection tests on Modal",
        "more than one callback of the deadlines that a DAG run has missed (whatever the executor)",
        "what a task fails with in Sentry (whatever the executor)",
    ),
    "3.3": (),
}


def lacking(minor: str) -> tuple[str, ...]:
    """What a minor version of Airflow lacks, the newest things first."""
    mine = tuple(int(part) for part in minor.split("."))
    listed = ((tuple(int(part) for part in version.split(".")), what) for version, what in LACKING.items())
    return tuple(thing for version, what in sorted(listed, reverse=True) if version >= mine for thing in what)


# --- configuration ---

_ADOPTED_AT_ONCE = 1_000


def default_queue(conf: Any) -> str:
    """The queue of tasks that name none."""
    return _of_everybody(conf, "operators", "default_queue") or "default"


def execution_api_server_url(conf: Any) -> str:
    """The Execution API's URL as Airflow itself resolves it."""
    base_url = _of_everybody(conf, "api", "base_url") or "/"
    if base_url.startswith("/"):
        base_url = f"http://localhost:8080{base_url}"
    return _of_everybody(conf, "core", "execution_api_server_url") or f"{base_url.rstrip('/')}/execution/"


def modal_hook(conn_id: str) -> Any:
    """The ModalHook of a connection id; CredentialsError where the provider that has it is missing."""
    try:
        from airflow.providers.modal.hooks.modal import ModalHook
    except ModuleNotFoundError as error:
        raise CredentialsError(
            f"{error.name} is not installed, and with it the connection type `modal`; expected the Modal provider "
            "beside Airflow: `pip install apache-airflow-providers-modal`."
        ) from error
    return ModalHook(conn_id)


def own_conf() -> Any:
    """The configuration of this process's Airflow."""
    from airflow.configuration import conf

    return conf


def conf_with_providers(section: str) -> Any:
    """As own_conf, with a section that a provider adds, which some versions load late outside of a scheduler."""
    conf = own_conf()
    if conf.getsection(section) is None:
        from airflow.providers_manager import ProvidersManager

        manager: Any = ProvidersManager
        manager().initialize_providers_configuration()
    return conf


def dag_bundle_config(conf: Any) -> str:
    """The DAG bundle configuration as JSON text, as a worker needs it."""
    return _of_everybody(conf, "dag_processor", "dag_bundle_config_list") or "[]"


def _of_everybody(conf: Any, section: str, key: str) -> str:
    """A setting of Airflow's own: a team's where it has one, else the one that holds for all teams.

    Asked for a team's, Airflow itself falls back to the option's default, whatever its configuration says.
    """
    value = conf.get(section, key, fallback="") or ""
    if getattr(conf, "team_name", None):
        everybody = own_conf()
        if value == (everybody.get_default_value(section, key) or ""):
            value = everybody.get(section, key, fallback="") or ""
    return str(value)


def setting_if_set(conf: Any, section: str, key: str) -> str | None:
    """Return a setting of Airflow's own as ``_of_everybody`` does; None where that is the option's default."""
    value = _of_everybody(conf, section, key)
    return None if value == str(own_conf().get_default_value(section, key) or "") else value


def names_of_executors() -> dict[str, str]:
    """What a worker's Airflow must know of the scheduler's, or it takes no DAG whose tasks name an executor, and none
    at all where a bundle belongs to a team. It looks the names up, and imports nothing by them."""
    names = {"AIRFLOW__CORE__EXECUTOR": str(own_conf().get("core", "executor"))}
    return {**names, "AIRFLOW__CORE__MULTI_TEAM": "True"} if _is_multi_team() else names


def _is_multi_team() -> bool:
    return bool(own_conf().getboolean("core", "multi_team", fallback=False))


def team_of_dag(dag_id: str) -> str | None:
    """The team whose ModalExecutor runs a DAG's tasks; None where that is everybody's. Asks Airflow's database if teams
    have one."""
    if not _is_multi_team():
        return None
    from airflow.executors.executor_loader import ExecutorLoader

    names = ExecutorLoader.get_executor_names(validate_teams=False)
    ours = {name.team_name for name in names if name.module_path.startswith(f"{__package__}.")}
    team = _team_name(dag_id) if ours - {None} else None
    return team if team in ours else None


def other_executor_of(ti: Any) -> str | None:
    """Return the name of a task instance's executor as its user wrote it, e.g. ``LocalExecutor``; None if that is
    ModalExecutor, or if nothing says which one it is."""
    named = getattr(ti, "executor", None)
    dag_id = getattr(ti, "dag_id", None)
    if ti is None or dag_id is None:
        return None
    from airflow.exceptions import UnknownExecutorException
    from airflow.executors import executor_loader

    loader: Any = executor_loader.ExecutorLoader
    of_team = {"team_name": _team_name(dag_id)} if _is_multi_team() else {}
    try:
        if named:
            found = loader.lookup_executor_name_by_str(named, **of_team)
        else:
            found = loader.get_default_executor_name(**of_team)
    except (UnknownExecutorException, LookupError):
        # It is no longer configured. What an alias stood for is unknown then; a class's name says it.
        return named if named and named.endswith("Executor") and not named.endswith("ModalExecutor") else None
    if _is_ours(found.module_path):
        return None
    return str(named or found.alias or found.module_path.rpartition(".")[2])


def _is_ours(module_path: str) -> bool:
    """Whether an executor's class is ModalExecutor, or a user's own class of that."""
    if module_path.startswith(f"{__package__}."):
        return True
    module, _, name = module_path.rpartition(".")
    try:
        executor = getattr(import_module(module), name)
    except (ImportError, AttributeError):
        return False
    return isinstance(executor, type) and issubclass(executor, ExecutorCompat)


def _team_name(dag_id: str) -> str | None:
    from airflow.models.dag import DagModel

    name: str | None = DagModel.get_team_name(dag_id)
    return name


def is_finished(ti: Any) -> bool:
    """Whether a try of a task instance has ended, so that no more comes to its log."""
    state = getattr(ti, "state", None)
    # Imported late, as all of Airflow here.
    from airflow.utils.state import State

    return state is not None and (state in State.finished or state == "up_for_retry")


def conf_of_team(team: str | None) -> Any:
    """The configuration as an executor of that team reads it."""
    if team is None:
        return own_conf()
    from airflow.executors.base_executor import ExecutorConf

    return ExecutorConf(team)


def bundle_names(bundles: Any) -> list[str]:
    """The names of a DagBundlesManager's bundles; 3.0 has no method that tells them."""
    if hasattr(bundles, "get_all_bundle_names"):
        return list(bundles.get_all_bundle_names())
    return list(bundles._bundle_config)


def configured_bundles() -> list[str]:
    """The names of the DAG bundles that this process's Airflow has; none if they cannot be read."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager

    manager: Any = DagBundlesManager
    try:
        return bundle_names(manager())
    except Exception:  # noqa: BLE001  Bundles are users' classes, and their configuration may be anything.
        return []


def bundle_version(version: str) -> Any:
    """A DAG bundle's version in the form that a bundle returns it."""
    from airflow.dag_processing.bundles import base

    return base.BundleVersion(version=version) if hasattr(base, "BundleVersion") else version


def remote_task_log() -> Any:
    """What Airflow reads task logs with after their tasks have ended; None where it has nothing."""
    from airflow import logging_config

    if AIRFLOW_V_3_2_PLUS:
        return logging_config.get_remote_task_log()
    # Not to be looked for with hasattr: the older module has every attribute, of value None.
    return getattr(logging_config, "REMOTE_TASK_LOG", None)


class _ConfBefore33:
    """An executor's configuration with what it lacks: whole sections, and those that no file has."""

    def __init__(self, of_executor: Any) -> None:
        self._of_executor = of_executor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of_executor, name)

    def getsection(self, section: str) -> Any:
        found = getattr(self._of_executor, "getsection", own_conf().getsection)(section)
        if found is not None:
            return found
        # No file has the section, and these versions do not look into the environment then.
        prefix = f"AIRFLOW__{section.upper()}__"
        own = {
            name.removeprefix(prefix).lower(): value for name, value in os.environ.items() if name.startswith(prefix)
        }
        return {name: int(value) if value.isdecimal() else value for name, value in own.items()}


# --- the executor, in the scheduler ---


class ExecutorCompat(_Base):
    """What ModalExecutor relies on and some version's BaseExecutor lacks. Comes before BaseExecutor among the bases."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._work_ids: dict[Any, str] = {}
        # Airflow's own attribute, which is missing in 3.0 and half of what it is later in 3.1.
        conf: Any = getattr(self, "conf", None) or own_conf()
        cast(Any, self).conf = conf if AIRFLOW_V_3_3_PLUS else _ConfBefore33(conf)

    if AIRFLOW_V_3_4_PLUS and not TYPE_CHECKING:

        def __init_subclass__(cls, **kwargs: Any) -> None:
            from airflow.executors.workloads import WorkloadType

            cls.supported_workload_types = frozenset(
                {WorkloadType.EXECUTE_TASK, WorkloadType.EXECUTE_CALLBACK, WorkloadType.TEST_CONNECTION}
            )
            super().__init_subclass__(**kwargs)
    else:
        supports_callbacks = True
        supports_connection_test = True

    if not AIRFLOW_V_3_2_PLUS:

        @staticmethod
        def get_cli_commands() -> list[Any]:
            """The commands that newer versions find by the provider's metadata, where this executor is configured."""
            module, _, name = CLI_COMMANDS.rpartition(".")
            return list(getattr(import_module(module), name)())

        def queue_workload(self, workload: Any, session: Session) -> None:
            """Queue a task under a work id, and store that in the transaction in which the scheduler queues it.

            From 3.2 on Airflow does this by itself (``pre_assigns_external_executor_id``). Without it a scheduler that
            is killed before it hears of the function call leaves a task that nobody can adopt: it would be reset, and
            what already runs of it killed. The row is locked by this very transaction, so nothing waits.
            """
            from airflow.models.taskinstance import TaskInstance
            from sqlalchemy import update

            key, work_id = workload.ti.key, str(uuid.uuid4())
            session.execute(
                update(TaskInstance)
                .where(TaskInstance.id == str(workload.ti.id))
                .values(external_executor_id=work_id)
                .execution_options(synchronize_session=False)
            )
            self._work_ids[key] = work_id
            self.queued_tasks[key] = workload

    if AIRFLOW_V_3_2_PLUS and not AIRFLOW_V_3_3_PLUS:

        def order_queued_tasks_by_priority(self) -> list[Any]:
            """Queued tasks with the highest priority first; 3.2 alone has the lowest first."""
            return sorted(self.queued_tasks.items(), key=lambda item: item[1].ti.priority_weight, reverse=True)

        def log_task_event(self, *, event: str, extra: str, ti_key: Any) -> None:
            """As BaseExecutor's, but of tasks alone: in 3.2 a callback, whose key is a text, is an error."""
            if not isinstance(ti_key, str):
                super().log_task_event(event=event, extra=extra, ti_key=ti_key)


def queued_workloads(executor: _Base) -> Iterator[dict[Any, Any]]:
    """The executor's dicts of queued workloads by key."""
    if (by_type := getattr(executor, "executor_queues", None)) is not None:
        yield from by_type.values()
        return
    for name in ("queued_tasks", "queued_callbacks", "queued_connection_tests"):
        yield getattr(executor, name, {})


def workload_key(executor: _Base, workload: Any) -> Any:
    """The key under which the executor was given a workload, and by which it tells Airflow of it."""
    for part in ("ti", "callback"):
        if hasattr(workload, part):
            return getattr(workload, part).key
    return workload.key


def pre_assigned_id(executor: _Base, workload: Any) -> str | None:
    """The id that is stored for this submission since it was queued; None for what is no task."""
    ti = getattr(workload, "ti", None)
    if ti is None:
        return None
    stored = ti.external_executor_id if AIRFLOW_V_3_2_PLUS else cast(Any, executor)._work_ids.pop(ti.key, None)
    return None if stored is None else str(stored)


def task_workload(ti: Any, executor: _Base) -> Any:
    """The workload of a task instance, as the scheduler makes it when it queues one; the token in it is a new one."""
    from airflow.executors import workloads

    wanted: dict[str, Any] = {"sentry_integration": getattr(executor, "sentry_integration", "")}
    known = signature(workloads.ExecuteTask.make).parameters
    return workloads.ExecuteTask.make(
        ti, generator=executor.jwt_generator, **{name: value for name, value in wanted.items() if name in known}
    )


def load_for_adoption(tis: Sequence[Any]) -> None:
    """Load in one query what a key needs of task instances of which the scheduler has loaded less.

    Each of them would cost a query of its own otherwise, on the scheduler's thread.
    """
    from airflow.models.taskinstance import TaskInstance
    from sqlalchemy import inspect, select
    from sqlalchemy.orm import load_only, object_session

    missing = [ti for ti in tis if isinstance(ti, TaskInstance) and "try_number" in inspect(ti).unloaded]
    session = object_session(missing[0]) if missing else None
    if session is None:
        return
    # Of these 3.2 and newer lack the first alone.
    columns = (TaskInstance.try_number, TaskInstance.map_index, TaskInstance.external_executor_id)
    for start in range(0, len(missing), _ADOPTED_AT_ONCE):
        ids = [ti.id for ti in missing[start : start + _ADOPTED_AT_ONCE]]
        # Objects that the session knows get what they lack.
        session.scalars(select(TaskInstance).where(TaskInstance.id.in_(ids)).options(load_only(*columns))).all()


def stats() -> Any:
    """Where metrics go, as Airflow's own executors have it: with ``incr``, ``gauge`` and ``timing``, each with tags."""
    from airflow.executors import base_executor

    # A module in newer versions, a class in older ones; both under the name that the version in use has.
    return getattr(base_executor, "stats", None) or base_executor.Stats  # type: ignore[attr-defined]


def tell_failed(executor: _Base, key: Any, reason: str) -> None:
    """Tell Airflow that a workload failed, and why."""
    if "reason" in signature(executor.fail).parameters:
        cast(Any, executor).fail(key, info=reason, reason=reason)
    else:
        executor.fail(key, reason)


def let_go(executor: _Base, key: Any) -> None:
    """Take a workload off the executor's hands without telling Airflow anything of it."""
    executor.running.discard(key)
    cast(Any, executor)._work_ids.pop(key, None)
    if hasattr(executor, "_pop_workload_run_id"):
        # Queued and never spoken of: its id would be taken for that of the key's next run.
        executor._pop_workload_run_id(key)


# --- the supervisor, in the worker ---

_PRELOADED: Final = (
    "airflow.executors.workloads",
    "airflow.executors.base_executor",
    "airflow.dag_processing.bundles.manager",
    "airflow.dag_processing.dagbag" if AIRFLOW_V_3_2_PLUS else "airflow.models.dagbag",
    "airflow.sdk.api.client",
    "airflow.sdk.execution_time.supervisor",
    "airflow.sdk.execution_time.task_runner",
    "airflow.sdk.log",
)
_PRELOADED_SINCE_3_3: Final = (
    "airflow.sdk.execution_time.callback_supervisor",
    "airflow.sdk.execution_time.connection_test_supervisor",
)


def modules_of_a_supervised_task() -> Sequence[str]:
    """What a supervised task imports, found by comparing ``sys.modules`` before and after tasks of each kind."""
    return (*_PRELOADED, *_PRELOADED_SINCE_3_3) if AIRFLOW_V_3_3_PLUS else _PRELOADED


#: Where a task has Airflow build validators: module → the types. A module or type that a version lacks is left out.
ADAPTED_IN_A_TASK: Final[dict[str, Sequence[str]]] = {
    "airflow.sdk.execution_time.comms": ("ToTask",),
    "airflow.sdk.execution_time.task_runner": ("ToTask", "StartupDetails", "JsonValue"),
}


@cache
def workload_adapter() -> Any:
    """The validator of workloads of every kind."""
    from airflow.executors import workloads
    from pydantic import TypeAdapter

    return TypeAdapter(workloads.All)


class CallbackFailedError(RuntimeError):
    """A callback failed; the message is what it said."""


def log_to(output: BinaryIO) -> None:
    """Send the log of this process to a stream, as JSON lines."""
    from airflow.sdk.log import configure_logging

    configure: Any = configure_logging
    if AIRFLOW_V_3_1_PLUS:
        configure(output=output, json_output=True)
    else:
        configure(output=output, enable_pretty_log=False)


def configure_masking() -> None:
    """Have secrets masked as the settings say now: Airflow reads them once in each process, when it is imported.

    Raises what ``[logging] secret_mask_adapter`` raises when it is imported.
    """
    from airflow import settings

    settings.HIDE_SENSITIVE_VAR_CONN_FIELDS = own_conf().getboolean("core", "hide_sensitive_var_conn_fields")
    if AIRFLOW_V_3_1_PLUS:
        cast(Any, settings)._configure_secrets_masker()
        return
    masker: Any = import_module("airflow.sdk.execution_time.secrets_masker")
    masker.get_sensitive_variables_fields.cache_clear()
    masker.get_min_secret_length.cache_clear()
    known = vars(masker._secrets_masker())
    known.pop("_mask_adapter", None)
    # Imported now rather than at the first secret.
    known["_mask_adapter"] = own_conf().getimport("logging", "secret_mask_adapter", fallback=None)


def configure_api_client() -> None:
    """Have the Execution API's client wait and retry as the settings say now: Airflow reads them when it is imported.

    Raises AirflowConfigException for a value that is no number.
    """
    client: Any = import_module("airflow.sdk.api.client")
    conf = own_conf()
    retrying = client.Client.request.retry
    retrying.stop.max_attempt_number = conf.getint("workers", "execution_api_retries")
    # 3.0 has one wait for several kinds of errors.
    wait = getattr(client.Client, "_default_wait", retrying.wait)
    wait.min = conf.getfloat("workers", "execution_api_retry_wait_min")
    wait.max = conf.getfloat("workers", "execution_api_retry_wait_max")
    timeout = conf.getfloat("workers", "execution_api_timeout", fallback=None)
    if hasattr(client, "API_TIMEOUT"):
        client.API_TIMEOUT = timeout
    elif timeout is not None:
        _set_timeout_of_clients(client.Client, timeout)


def _set_timeout_of_clients(client: Any, timeout: float) -> None:
    """Give the clients of Airflow before 3.1.1 a timeout: they have httpx's own, 5 s, and no setting for it."""
    original = client.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs.setdefault("timeout", timeout)
        original(self, *args, **kwargs)

    client.__init__ = __init__


def redacted(text: str) -> str:
    """Return a text with ``***`` for the secrets that this process knows of."""
    name = "airflow.sdk.log" if AIRFLOW_V_3_1_PLUS else "airflow.sdk.execution_time.secrets_masker"
    masker: Any = import_module(name)
    return str(masker.redact(text))


#: Where DAG files are imported, by version: the newest that is there counts.
_DAG_IMPORTERS = (
    ("airflow.dag_processing.importers.python_importer", "PythonDagImporter"),
    ("airflow.dag_processing.dagbag", "DagBag"),
    ("airflow.models.dagbag", "DagBag"),
)


@contextlib.contextmanager
def dag_bags_made() -> Iterator[list[Any]]:
    """Yield the DagBags that are made within the context, a bag that fails while it is filled included."""
    module = "airflow.dag_processing.dagbag" if AIRFLOW_V_3_2_PLUS else "airflow.models.dagbag"
    dag_bag: Any = import_module(module).DagBag
    made: list[Any] = []
    original = dag_bag.__init__

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        original(self, *args, **kwargs)

    dag_bag.__init__ = __init__
    try:
        yield made
    finally:
        dag_bag.__init__ = original


def end_at_segfaults() -> None:
    """Have a segmentation fault end a task.

    Airflow handles the signal while it imports the DAG file, and leaves the handler. Python's handlers return to the
    instruction that failed, so that a later fault is repeated for ever.
    """
    for module, name in _DAG_IMPORTERS:
        try:
            importer: Any = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
        original = importer._load_modules_from_file

        def _load_modules_from_file(self: Any, *args: Any, _original: Any = original, **kwargs: Any) -> Any:
            try:
                return _original(self, *args, **kwargs)
            finally:
                with contextlib.suppress(ValueError):  # In a thread there was no handler set either.
                    signal.signal(signal.SIGSEGV, signal.SIG_DFL)

        importer._load_modules_from_file = _load_modules_from_file
        return


def describe_failed_callbacks(describe: Callable[[BaseException], str]) -> None:
    """Have a callback report why it failed also where Airflow cannot put that into words.

    It formats and logs what was raised, which can raise in turn; all that is left then is an exit code.
    """
    try:
        runner: Any = import_module("airflow.sdk.execution_time.callback_supervisor")
    except ImportError:
        return
    original = runner.execute_callback

    def execute_callback(*args: Any, **kwargs: Any) -> tuple[bool, str | None]:
        try:
            outcome: tuple[bool, str | None] = original(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  The border of a user's code: whatever it raised is its outcome.
            return False, f"Callback execution failed: {describe(error.__context__ or error)}"
        return outcome

    runner.execute_callback = execute_callback


def before_connection_test_results(presentable: Callable[[str], str]) -> None:
    """Have what a connection test reports to Airflow's API go through this: a database may refuse it as it is."""
    from airflow.sdk.api import client

    operations: Any = getattr(client, "ConnectionTestOperations", None)
    if operations is None:
        return
    original = operations.update_state

    def update_state(self: Any, id: Any, state: Any, result_message: Any = None) -> None:
        original(self, id, state, None if result_message is None else presentable(str(result_message)))

    operations.update_state = update_state


def writes_own_log(workload: Any) -> bool:
    """Whether the supervisor opens the workload's log; else it has only what this process prints."""
    return hasattr(workload, "log_path") and (AIRFLOW_V_3_3_PLUS or hasattr(workload, "ti"))


def supervise(workload: Any) -> int:
    """Run a workload under Airflow's own supervisor; return the exit code of what it ran.

    Raises CallbackFailedError and whatever the supervisor raises. The older versions' own ``execute_workload`` is not
    used: it prints the workload together with its token.
    """
    from airflow.executors import base_executor

    if AIRFLOW_V_3_3_PLUS:
        return int(base_executor.BaseExecutor.run_workload(workload))
    if not hasattr(workload, "ti"):
        return _run_callback_of_3_2(workload)
    from airflow.sdk.execution_time import supervisor

    _forward_signals(supervisor.ActivitySubprocess)
    more = {"sentry_integration": workload.sentry_integration} if AIRFLOW_V_3_2_PLUS else {}
    run: Any = cast(Any, supervisor).supervise
    return int(
        run(
            ti=workload.ti,
            dag_rel_path=workload.dag_rel_path,
            bundle_info=workload.bundle_info,
            token=workload.token,
            server=execution_api_server_url(own_conf()),
            log_path=workload.log_path,
            **more,
        )
    )


def _run_callback_of_3_2(workload: Any) -> int:
    """As 3.2's executors do, in this process; but with the DAG bundle at hand, as from 3.3 on."""
    import sys

    import structlog
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.executors.workloads import callback

    info = workload.bundle_info
    bundles: Any = DagBundlesManager
    bundle = bundles().get_bundle(name=info.name, version=info.version)
    bundle.initialize()
    sys.path.append(str(bundle.path))
    _import_dag_file(str(workload.callback.data.get("path", "")), Path(bundle.path) / workload.dag_rel_path)
    log = structlog.get_logger(logger_name="callback_runner")
    succeeded, error = cast(Any, callback).execute_callback_workload(workload.callback, log)
    if not succeeded:
        raise CallbackFailedError(error or "Callback execution failed")
    return 0


def _import_dag_file(callback_path: str, dag_file: Path) -> None:
    """Import a DAG file under the name by which a callback in it is known, and which no import would find."""
    import sys
    from importlib.util import module_from_spec, spec_from_file_location

    name = callback_path.rpartition(".")[0]
    spec = spec_from_file_location(name, dag_file) if name.startswith("unusual_prefix_") else None
    if spec is not None and spec.loader is not None:
        sys.modules[name] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _forward_signals(supervisor: Any) -> None:
    """Pass on to the task what asks its supervisor to end, so that ``on_kill()`` runs; 3.3 does so by itself."""
    original = supervisor.wait

    def wait(self: Any) -> int:
        def forward(number: int, frame: object) -> None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

        before = {number: signal.signal(number, forward) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            return int(original(self))
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    supervisor.wait = wait


def already_runs(error: Exception) -> bool:
    """Whether a task was not started because it runs already; before 3.2 that is a refusal like any other."""
    return type(error).__name__ == "TaskAlreadyRunningError"
