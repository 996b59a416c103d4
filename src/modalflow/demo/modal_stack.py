"""Airflow with tasks on Modal: a local control plane, its deployed worker, and an AirflowStack.

Owns the shared settings of the three, and the proof of each task's place. It deploys through the user's command.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from modalflow.demo.airflow_api import TaskInstance
from modalflow.demo.calls import containers_of
from modalflow.demo.programs.program import MakeProgram, Program, describe_exit
from modalflow.demo.report import CALL, Row
from modalflow.demo.stack import RESTARTS, SEPARATE, AirflowStack
from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import Options

log = logging.getLogger(__name__)

MODAL_EXECUTOR: Final = "modalflow.executor.modal_executor.ModalExecutor"
#: A user's settings of Airflow beside the executor: the source of task logs.
ON_MODAL: Final = {"AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "modalflow.airflow_logging.LOGGING_CONFIG"}
#: The same if containers share the network of this machine.
WITH_NETWORK: Final = {"AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct"}
DEPLOY_TIMEOUT: Final = 180.0
#: The same over another root file system, if every package of the images has to be installed.
BUILD_TIMEOUT: Final = 1200.0
#: The form of a function call in the worker's log.
_CALL_IN_LOG: Final = re.compile(rf"function_call_id=\"?({CALL}\w+)")


class ModalStack:
    """A running Airflow on a local control plane; a context manager without leftovers.

    ``dags``, ``env``, ``processes``, ``restarts``, ``report`` and ``make_program`` are as for AirflowStack; ``modal``
    sets up the control plane, ``deploy`` are further options of ``modalflow deploy``. ``before_start`` is called when
    Airflow has its tables and the worker is deployed, before its processes start.
    """

    def __init__(
        self,
        dags: Path,
        *,
        env: Mapping[str, str] | None = None,
        processes: Mapping[str, Sequence[str]] = SEPARATE,
        restarts: int = RESTARTS,
        modal: Options | None = None,
        deploy: Sequence[str] = (),
        report: Callable[[str], None] = log.info,
        make_program: MakeProgram = Program,
        before_start: Callable[[ModalStack], None] = lambda stack: None,
    ) -> None:
        self._report = report
        self._make_program = make_program
        self._before_start = before_start
        self._dags = dags
        self._processes = processes
        self._restarts = restarts
        self._modal = modal
        self._deploy_options = tuple(deploy)
        self._env = dict(env or {})
        self.control_plane_is_gone = False
        """Whether ``check`` found that the control plane has ended."""
        self.local: LocalModal
        self.airflow: AirflowStack

    def __enter__(self) -> Self:
        began = time.monotonic()
        with ExitStack() as entered:
            self.local = entered.enter_context(LocalModal(self._modal, as_default=False))
            isolated = self._modal is not None and self._modal.network == "none"
            note = "; containers have no network" if isolated else ""
            self._report(f"the local control plane is up ({time.monotonic() - began:.1f} s): {self.local.url}{note}")
            env = {**ON_MODAL, **({} if isolated else WITH_NETWORK), **self.local.env, **self._env}
            self.airflow = AirflowStack(
                self._dags,
                executor=MODAL_EXECUTOR,
                env=env,
                processes=self._processes,
                restarts=self._restarts,
                report=self._report,
                make_program=self._make_program,
            )
            entered.push(self._stop_airflow)
            # In parallel with the creation of Airflow's database, because this takes longer.
            deploy = self.deploy_program("deploy", *self._deploy_options)
            entered.callback(deploy.stop)
            deploy.start()
            self.airflow.prepare()
            deploy.wait(BUILD_TIMEOUT if self._modal is not None and self._modal.base else DEPLOY_TIMEOUT)
            self._report("the worker app is deployed")
            self._before_start(self)
            self.airflow.start()
            self._entered = entered.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.__exit__(kind, error, trace)

    def check(self) -> None:
        """StackError if a process of Airflow's has ended.

        Report the end of the control plane. Airflow continues without it, as during an outage of Modal.
        """
        self.airflow.check()
        how = self._control_plane_ended()
        if how and not self.control_plane_is_gone:
            self.control_plane_is_gone = True
            self._report(f"the local control plane has ended ({how}), and every container with it; the last it wrote:")
            self._report(self.local.stderr() or "(nothing)")
            self._report("Airflow notices the missing reports of their tasks within a minute")

    def rows(self, dag_id: str, run_id: str) -> list[Row]:
        """Return every task instance of a DAG run, with the control plane's record of its function call."""
        instances = self.airflow.api.task_instances(dag_id, run_id)
        stored = self.airflow.metadata.function_call_ids(dag_id, run_id)
        calls = [stored.get(instance.id, "") for instance in instances]
        for position, instance in enumerate(instances):
            # If a task instance is locked, Airflow drops the executor's event. The log has the id too.
            if instance.hostname and not calls[position].startswith(CALL):
                calls[position] = self._call_in_log(dag_id, run_id, instance)
        confirmed = {} if self._control_plane_ended() else containers_of(calls, self.local.env)
        return [
            Row(instance, call, confirmed.get(call, frozenset()))
            for instance, call in zip(instances, calls, strict=True)
        ]

    def _call_in_log(self, dag_id: str, run_id: str, instance: TaskInstance) -> str:
        """Return the last function call in a task's log."""
        found = _CALL_IN_LOG.findall("\n".join(self.airflow.api.log(dag_id, run_id, instance)))
        return str(found[-1]) if found else ""

    def _control_plane_ended(self) -> str:
        """Return how its process ended; nothing while it runs."""
        try:
            # Only checked: LocalModal reaps the process.
            end = os.waitid(os.P_PID, self.local.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return "for an unknown reason"
        if end is None:
            return ""
        return describe_exit(end.si_status if end.si_code == os.CLD_EXITED else 128 + end.si_status)

    def deploy_program(self, name: str, *options: str) -> Program:
        """Return ``modalflow deploy`` with these options, not started, with its own log of this name."""
        command = (sys.executable, "-m", "modalflow.cli", "deploy", *options)
        airflow = self.airflow
        return airflow.make_program(name, command, airflow.env, airflow.logs / f"{name}.log", airflow.home)

    def _stop_airflow(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.airflow.__exit__(kind, error, trace)
