"""What chaos is made on: two schedulers on PostgreSQL, a control plane that can be killed and started again, a tally.

Owns the processes and the views on them that do not depend on what is broken just then: Airflow's database, the
ledger, the schedulers' dumps. What goes wrong, and when, is said elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final

import modal
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from modalflow.demo.airflow_api import AirflowAPIError
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.programs.ports import free_port
from modalflow.demo.programs.program import Program
from modalflow.demo.stack import SEPARATE
from modalflow.emulator.faults.fault_control import FaultError
from modalflow.emulator.options import Options
from modalflow.names import Names
from modalflow.protocol.messages import Entry
from tests.chaos.tally import VARIABLE, Tally
from tests.forked_stack import forked_stack
from tests.sdk import client_of
from tests.support import descendants, wait_until
from tests.transport import check_transport

SCHEDULERS: Final = ("scheduler", "scheduler-2")
PROCESSES: Final = {**SEPARATE, SCHEDULERS[1]: SEPARATE["scheduler"]}
APP: Final = Names().app
HOLDER: Final = "holder"
#: How many tasks each DAG of dags/ has at the start; each is there with a GPU as well.
TASKS: Final[Mapping[str, int]] = {"chaos_pair": 4, "chaos_mapped": 3, "chaos_phases": 2, "chaos_phases_once": 2}
DAGS: Final = tuple(f"{dag}{suffix}" for dag in TASKS for suffix in ("", "_gpu"))
#: Those of the soak, and how many tasks each has.
SOAK_DAGS: Final[Mapping[str, int]] = {"soak_mapped": 40, "soak_plain": 20, "soak_phases": 10}

#: Faults are noticed within seconds here, and within minutes in production. DAG files never change.
QUICK: Final[Mapping[str, str]] = {
    "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "3600",
    "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "1",
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "10",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "4",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "45",
    "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "1",
    "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "1",
}

#: Seconds for whatever a busy machine may take long to do.
PATIENCE: Final = 90.0
#: Seconds after which a scheduler that has not answered is asked again.
ASK_AGAIN: Final = 3.0
#: Seconds for an idle container to make way for the one that takes the GPU.
GPU_PATIENCE: Final = 30.0
#: The file to deploy.
WORKER: Final = str(Path(__file__).parent / "worker.py")
#: How often the guard of a process starts it again in one session.
RESTARTS: Final = 200

_IN_FLIGHT = re.compile(r"(\d+) calls in flight")
_days = count()


@dataclass
class Chaos:
    """The stack, with what a test of it needs at hand."""

    stack: ModalStack
    tally: Tally
    engine: Engine
    client: modal.Client
    ledger: modal.Dict
    holder: modal.App
    _frozen: str | None = None
    """The scheduler that stays stopped when the others go on."""
    _held: modal.FunctionCall[Any] | None = None

    # Airflow

    def query(self, statement: str, **values: object) -> list[dict[str, Any]]:
        """Ask Airflow's database; again while it is being restarted."""

        def ask() -> list[dict[str, Any]] | None:
            try:
                with self.engine.connect() as connection:
                    return [dict(row) for row in connection.execute(text(statement), values).mappings()]
            except OperationalError:
                return None

        deadline = time.monotonic() + PATIENCE
        while (rows := ask()) is None:
            assert time.monotonic() < deadline, "Airflow's database did not come back"
        return rows

    def trigger(self, dag_id: str, cell: str) -> str:
        """Start a DAG run of a cell; its run id."""
        when = datetime(2026, 1, 2, tzinfo=UTC) + timedelta(hours=next(_days))
        return self.stack.airflow.api.trigger(dag_id, when, {"cell": cell})

    def instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """The task instances of a DAG run as the database has them."""
        return self.query(
            "select task_id, map_index, state, try_number, max_tries, external_executor_id from task_instance "
            "where dag_id = :dag and run_id = :run",
            dag=dag_id,
            run=run_id,
        )

    def restart(self, name: str, signal_number: signal.Signals) -> None:
        """Send a signal that ends a process, and see that it is started again."""
        program = self.stack.airflow.programs[name]
        was = program.pid
        os.kill(was, signal_number)
        if signal_number is not signal.SIGKILL:
            # It ends by itself then, and its guard with it; one that was stopped hears of it when it goes on.
            os.kill(was, signal.SIGCONT)
            wait_until(lambda: program.exit_code() is not None, PATIENCE, f"the end of {name}")
            program.stop()
            program.start()
        wait_until(lambda: _pid(program) not in (None, was), PATIENCE, f"a new {name}")

    def relays(self) -> list[int]:
        """The process ids of the schedulers' relays."""
        schedulers = [pid for name in SCHEDULERS if (pid := _pid(self.stack.airflow.programs[name])) is not None]
        return [
            relay
            for scheduler in schedulers
            for relay, command in descendants(scheduler).items()
            if "modalflow.cli relay" in command
        ]

    def start_what_ended(self) -> None:
        """Start whatever has ended by itself, as an init system would: a scheduler that lost its database does."""
        for program in self.stack.airflow.programs.values():
            if program.exit_code() is not None:
                program.stop()
                program.start()

    def restart_postgres(self) -> None:
        """End the database as an administrator's restart does, open sessions and all, and start it on the same data."""
        program = self.stack.airflow.programs["postgres"]
        program.stop()
        program.start()

    def all_well(self) -> bool:
        """Whether every process of Airflow's is there and well."""
        try:
            return not self.stack.airflow.api.unhealthy()
        except AirflowAPIError:
            return False

    def stop_schedulers(self) -> None:
        """Stop both schedulers where they are, as a debugger would, but in no transaction.

        Its locks would hold up the API server, and with it the tasks that are to reach their moment.
        """

        first, second = SCHEDULERS
        wait_until(lambda: self._stopped(first, self._ends_transactions), 60.0, f"{first} to stop outside of one")
        wait_until(lambda: self._stopped(second, self._no_transaction), 60.0, f"{second} to stop outside of one")

    def _stopped(self, name: str, condition: Callable[[], bool]) -> bool:
        """Stop one; if it was in a transaction, continue it."""
        pid = self.stack.airflow.programs[name].pid
        os.kill(pid, signal.SIGSTOP)
        try:
            wait_until(condition, 2.0, "the end of transactions", interval=0.02)
        except AssertionError:
            os.kill(pid, signal.SIGCONT)
            return False
        return True

    def _ends_transactions(self) -> bool:
        """Whether all transactions of now end soon: one that does not is a stopped scheduler's, or a slow one."""
        now = self._transactions()
        try:
            wait_until(lambda: not now & self._transactions(), 1.0, "the end of these transactions", interval=0.02)
        except AssertionError:
            return False
        return True

    def _no_transaction(self) -> bool:
        return not self._transactions()

    def _transactions(self) -> set[tuple[int, datetime]]:
        """The transactions of now: each by its backend and beginning."""
        query = text(
            "SELECT pid, xact_start FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' "
            "AND (state = 'active' OR state LIKE 'idle in transaction%')"
        )
        with self.engine.connect() as connection:
            return {(row.pid, row.xact_start) for row in connection.execute(query)}

    def continue_schedulers(self) -> None:
        self._signal_schedulers(signal.SIGCONT)

    def freeze_scheduler(self, name: str) -> None:
        """Stop one where it is, until ``thaw_scheduler``."""
        self._frozen = name
        os.kill(self.stack.airflow.programs[name].pid, signal.SIGSTOP)

    def thaw_scheduler(self) -> None:
        self._frozen = None
        self.continue_schedulers()

    def _signal_schedulers(self, number: signal.Signals) -> None:
        for name in SCHEDULERS:
            if name == self._frozen and number is signal.SIGCONT:
                continue
            with contextlib.suppress(OSError, ValueError):
                os.kill(self.stack.airflow.programs[name].pid, number)

    def in_flight(self) -> dict[str, int]:
        """How many calls each scheduler says are under way, by its dump for operators."""
        return {name: self._dumped(self.stack.airflow.programs[name]) for name in SCHEDULERS}

    def _dumped(self, program: Program) -> int:
        self.start_what_ended()
        # One that has just been started again would be killed by it.
        wait_until(partial(_catches, program, signal.SIGUSR2), PATIENCE, f"{program.name} to be up")
        place = program.log.stat().st_size
        asked = 0.0

        def said() -> str | None:
            nonlocal asked
            # Again, because one whose executor is not started yet has nothing to say of it.
            if time.monotonic() - asked > ASK_AGAIN:
                os.kill(program.pid, signal.SIGUSR2)
                asked = time.monotonic()
            with program.log.open(errors="replace") as log:
                log.seek(place)
                numbers = _IN_FLIGHT.findall(log.read())
            return numbers[-1] if numbers else None

        return int(wait_until(said, PATIENCE, f"the dump of {program.name}", interval=0.1) or 0)

    def logged(self, run_id: str) -> list[str]:
        """What both schedulers, Airflow's own code in them included, have logged of a DAG run."""
        found = []
        for name in SCHEDULERS:
            log = self.stack.airflow.programs[name].log.read_text(errors="replace")
            found += [f"{line} ({name})" for line in log.splitlines() if run_id in line and line[:4].isdigit()]
        return sorted(found)

    # Modal

    def kill_control_plane(self) -> None:
        """End it as a crash would, and start another one on what it left."""
        local = self.stack.local
        os.kill(local.pid, signal.SIGKILL)
        local.stop()
        local.start()

    def entries(self) -> dict[str, Entry]:
        """The ledger, by work id."""
        return {str(key): Entry.from_json(value) for key, value in self.ledger.items()}

    def entry(self, external_executor_id: str | None) -> Entry | None:
        """The ledger's entry of a task instance."""
        value = self.ledger.get((external_executor_id or "-").rpartition("/")[2])
        return None if value is None else Entry.from_json(value)

    def busy_containers(self) -> list[str]:
        """The worker's containers that have an input."""
        return [each.container_id for each in self.stack.local.faults.containers() if each.app == APP and each.inputs]

    def occupy_gpu(self) -> None:
        """Take the only GPU, so that whoever asks for one waits."""
        self._held = modal.Function.from_name(HOLDER, "hold", client=self.client).spawn()
        try:
            wait_until(self._holds, GPU_PATIENCE, "the GPU to be taken", interval=0.1)
        except AssertionError:
            # Whoever has it: an idle container that is kept warm, or one of an earlier row's that is still ending.
            before = self.stack.local.faults.containers()
            for each in before:
                with contextlib.suppress(FaultError):
                    self.stack.local.faults.now("kill", container=each.container_id)
            wait_until(
                self._holds, GPU_PATIENCE, f"the GPU to be taken, which one of these had: {before}", interval=0.1
            )

    def _holds(self) -> bool:
        return any(each.app == HOLDER and each.inputs for each in self.stack.local.faults.containers())

    @property
    def holds_gpu(self) -> bool:
        """Whether it is still taken."""
        return self._held is not None

    def release_gpu(self) -> None:
        """Give it back; repeating it is harmless, and called for where Modal refuses everybody just then."""
        if self._held is not None:
            with contextlib.suppress(modal.exception.Error, OSError):
                self._held.cancel(terminate_containers=True)
                self._held = None


@contextmanager
def chaos_on(folder: Path, env: Mapping[str, str] | None = None, **modal_options: Any) -> Iterator[Chaos]:
    """A stack for chaos whose files are in ``folder``."""
    dags = folder / "dags"
    shutil.copytree(Path(__file__).parent / "dags", dags)
    meeting = folder / "meeting"
    meeting.mkdir()
    options = Options(
        state_dir=folder / "modal",
        port=free_port(),
        gpus=("T4=1",),
        cpus=32.0,
        memory=1 << 16,
        fault_seed=1,
        buckets=(f"tally={meeting}",),
        network=os.environ.get("CHAOS_NETWORK", "none"),
    )
    options = dataclasses.replace(options, **modal_options)
    with ExitStack() as entered:
        tally = entered.enter_context(Tally(meeting / "tally"))
        worker_env = {
            "AIRFLOW__MODAL_EXECUTOR__WORKER_ENV": json.dumps({VARIABLE: tally.address}),
            "CHAOS_FOLDER": str(meeting),
        }
        stack = entered.enter_context(
            forked_stack(
                dags,
                env={**QUICK, **worker_env, **(env or {})},
                processes=PROCESSES,
                restarts=RESTARTS,
                modal=options,
                deploy=(WORKER,),
                report=print,
            )
        )
        for dag_id in (*DAGS, *SOAK_DAGS):
            stack.airflow.wait_for_dag(dag_id)
            stack.airflow.api.unpause(dag_id)
        engine = create_engine(stack.airflow.env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"], poolclass=NullPool)
        client = entered.enter_context(client_of(stack.local.url, stack.local.env))
        ledger = modal.Dict.from_name(Names().ledger, client=client)
        yield Chaos(stack, tally, engine, client, ledger, _deploy_holder(client))
        if options.network == "none":
            check_transport(stack)


def _deploy_holder(client: modal.Client) -> modal.App:
    holder = modal.App(HOLDER)

    @holder.function(serialized=True, name="hold", gpu="T4", scaledown_window=2, timeout=600)
    def hold() -> None:
        import time

        time.sleep(600)

    holder.deploy(name=HOLDER, client=client)
    return holder


def _pid(program: Program) -> int | None:
    try:
        return program.pid
    except (OSError, ValueError):
        return None


def _catches(program: Program, number: signal.Signals) -> bool:
    """Whether a process has a handler for a signal."""
    try:
        status = Path(f"/proc/{program.pid}/status").read_text()
    except (OSError, ValueError):
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)
