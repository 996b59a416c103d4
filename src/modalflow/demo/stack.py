"""A real Airflow: its four processes on an embedded PostgreSQL, all private to one folder.

Owns their configuration, start order and end. It does not know the executor: the caller passes it with its environment.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import secrets
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from modalflow.demo.airflow_api import AirflowAPI, AirflowAPIError
from modalflow.demo.metadata import Metadata
from modalflow.demo.programs.ports import free_port
from modalflow.demo.programs.postgres import READY_TIMEOUT, Postgres
from modalflow.demo.programs.program import MakeProgram, Program, StackError, stop_all
from modalflow.emulator.state.scratch import Scratch

log = logging.getLogger(__name__)

LOCAL_EXECUTOR: Final = "LocalExecutor"
BUNDLE: Final = "modalflow-demo"
# Restarts of a killed process before the stack gives up.
RESTARTS: Final = 3
POLL: Final = 0.05
#: Seconds between two requests to the API server, which has its own start to do.
API_POLL: Final = 0.2
#: Seconds for the creation of Airflow's tables, and for the health of all its processes: ten times an idle machine's.
START_TIMEOUT: Final = 240.0

# Shorter waits for a demo. The defaults are for large, long-running installations.
IMPATIENCE: Final[Mapping[str, str]] = {
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
}


#: Airflow's processes, each separate as in production: name → arguments of the ``airflow`` command.
SEPARATE: Final[Mapping[str, Sequence[str]]] = {
    "api-server": ("api-server", "--workers", "1"),
    "scheduler": ("scheduler", "--skip-serve-logs"),
    "dag-processor": ("dag-processor",),
    "triggerer": ("triggerer",),
}


class AirflowStack:
    """A running Airflow; a context manager without leftover processes or files.

    ``dags`` is the folder of its one DAG bundle. ``executor`` is Airflow's ``[core] executor``. ``env`` reaches every
    process and overrides the stack's own settings. ``processes`` are its processes, each
    started again ``restarts`` times after a kill. ``report`` gets a line per step. ``make_program`` makes the programs,
    except PostgreSQL's.
    """

    def __init__(
        self,
        dags: Path,
        *,
        executor: str = LOCAL_EXECUTOR,
        env: Mapping[str, str] | None = None,
        processes: Mapping[str, Sequence[str]] = SEPARATE,
        restarts: int = RESTARTS,
        report: Callable[[str], None] = log.info,
        make_program: MakeProgram = Program,
    ) -> None:
        self.make_program = make_program
        self._scratch = Scratch("modalflow-demo-")
        self.folder = self._scratch.path
        # PostgreSQL may run as another user, and must reach its own folder in here.
        self.folder.chmod(0o711)
        self.logs = self.folder / "logs"
        self.home = self.folder / "airflow"
        for folder in (self.logs, self.home):
            folder.mkdir(mode=0o700)
        self.keep_logs = False
        """Whether the logs are to stay after the end, until the next stack is made."""
        self._report = report
        self._processes = processes
        self._restarts = restarts
        base = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW_")}
        self._postgres = Postgres(self.folder / "postgres", self.logs / "postgres.log", base)
        self.port = free_port()
        self.env = base | self._airflow_env(dags, executor) | dict(env or {})
        self.programs: dict[str, Program] = {}
        self.api = AirflowAPI(self.url, while_away=self.check)

    @property
    def url(self) -> str:
        """The address of its UI and its REST API."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def execution_api_url(self) -> str:
        """The address for workers' reports."""
        return f"{self.url}/execution/"

    @property
    def metadata(self) -> Metadata:
        """Its metadata database, for facts outside of the REST API."""
        return Metadata(self._postgres.url)

    def prepare(self) -> None:
        """Start the database and make Airflow's tables."""
        began = time.monotonic()
        self._start_postgres()
        self.program("db-migrate", "db", "migrate").run(START_TIMEOUT)
        self._report(f"Airflow's database is up ({time.monotonic() - began:.1f} s)")

    def start(self) -> None:
        """Start Airflow's processes and wait until all are healthy. StackError names an unhealthy one."""
        began = time.monotonic()
        for name, command in self._processes.items():
            program = self.programs[name] = self.program(name, *command)
            program.restarts = self._restarts
            program.start()
        self._wait_until_healthy(began + START_TIMEOUT)
        self._report(f"Airflow is up ({time.monotonic() - began:.1f} s): {self.url}")

    def wait_for_dag(self, dag_id: str, timeout: float = 120.0) -> None:
        """Wait until the DAG can run. StackError has the reason if it cannot."""
        deadline = time.monotonic() + timeout
        while not self.api.dag_is_known(dag_id):
            self.check()
            if errors := self.api.import_errors():
                broken = "\n".join(f"{file}:\n{trace}" for file, trace in errors.items())
                raise StackError(f"a DAG cannot be imported.\n{broken}")
            if time.monotonic() > deadline:
                raise StackError(f"{dag_id} was not parsed in {timeout:.0f} s.\n{self.reports(['dag-processor'])}")
            time.sleep(API_POLL)

    def check(self) -> None:
        """Raise StackError if a process has ended. Report a killed and restarted one.

        To be called now and then while the stack is in use.
        """
        for program in self.programs.values():
            if (news := program.check()) is not None:
                self._report(news)

    def reports(self, names: Iterable[str]) -> str:
        """Return the tails of some processes' logs; without its own log, the common one."""
        programs = {name: self.programs[name] for name in names if name in self.programs}
        return "\n".join(program.report() for program in (programs or self.programs).values())

    def stop(self) -> None:
        """End every process and remove the folder, except logs still needed."""
        self.api.close()
        postgres = self.programs.pop("postgres", None)
        stop_all(list(self.programs.values()))
        if postgres is not None:
            stop_all([postgres])
        self._postgres.clean()
        if not self.keep_logs:
            self._scratch.close()
            return
        for path in self.folder.iterdir():
            if path != self.logs and path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
        self._scratch.abandon()
        self._report(f"the logs of every process stay until the next demo: {self.logs}")

    def __enter__(self) -> Self:
        try:
            self.prepare()
            self.start()
        except BaseException as error:
            self.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.keep_logs = self.keep_logs or isinstance(error, StackError | AirflowAPIError)
        self.stop()

    def _start_postgres(self) -> None:
        self._postgres.prepare()
        program = self._postgres.program
        assert program is not None
        self.programs["postgres"] = program
        program.start()
        deadline = time.monotonic() + READY_TIMEOUT
        while not self._postgres.is_ready():
            self.check()
            if time.monotonic() > deadline:
                raise StackError(f"PostgreSQL was not ready in {READY_TIMEOUT:.0f} s.\n{program.report()}")
            time.sleep(POLL)

    def _wait_until_healthy(self, deadline: float) -> None:
        """The API server reports on all others."""
        warm = False
        while unhealthy := self.api.unhealthy() if warm else ["api-server"]:
            self.check()
            # First, so that the start of the others runs in parallel.
            warm = warm or self.api.warm_up()
            if time.monotonic() > deadline:
                raise StackError(f"not ready in time: {', '.join(unhealthy)}.\n{self.reports(unhealthy)}")
            time.sleep(API_POLL)

    def program(self, name: str, *command: str) -> Program:
        """Return an ``airflow`` command of this Airflow, not started, with its own log of this name."""
        log = self.logs / f"{name}.log"
        # First on the path: `airflow standalone` finds its command there.
        path = os.pathsep.join((str(Path(sys.executable).parent), self.env.get("PATH", os.defpath)))
        env = {**self.env, "PATH": path}
        return self.make_program(name, (sys.executable, "-m", "airflow", *command), env, log, self.home)

    def _airflow_env(self, dags: Path, executor: str) -> dict[str, str]:
        bundle = {
            "name": BUNDLE,
            "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
            "kwargs": {"path": str(dags)},
        }
        return {
            **IMPATIENCE,
            "AIRFLOW_HOME": str(self.home),
            "AIRFLOW__CORE__EXECUTOR": executor,
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": self.execution_api_url,
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(48),
            "AIRFLOW__API__SECRET_KEY": secrets.token_urlsafe(48),
            "AIRFLOW__API__HOST": "127.0.0.1",
            "AIRFLOW__API__PORT": str(self.port),
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": self._postgres.url,
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
            "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(self.folder / "task-logs"),
            "AIRFLOW__LOGGING__COLORED_CONSOLE_LOG": "False",
            "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }
