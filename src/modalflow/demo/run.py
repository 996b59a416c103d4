"""The demo as a story: start everything, run the example DAG, show it, prove where it ran.

Owns the order of steps, the time limit and the output. Everything it starts ends with it.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

from rich.console import Console
from rich.markup import escape

from modalflow.demo.airflow_api import AirflowAPIError, TaskInstance
from modalflow.demo.dags import DEMO_DAG, example_dags
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.programs.program import StackError
from modalflow.demo.report import EXPECTED_SKIPPED, STYLES, problems, table
from modalflow.emulator.local import NoNetworkError, StartError
from modalflow.emulator.options import Options as ModalOptions

POLL: Final = 0.25
LOG_LINES: Final = 12
#: The task of the printed log: the last to run, and a Bash command.
SHOWN_TASK: Final = "send_report"

Say = Callable[[str], None]

#: State of a task instance → the log with its cause.
RESPONSIBLE: Final = {"deferred": "triggerer"}
ENDED: Final = ("success", "failed", "upstream_failed", "skipped", "removed")


@dataclass(frozen=True)
class Options:
    """The user's options of the demo."""

    keep: bool = False
    timeout: float = 300.0
    """Seconds from the first step until the DAG has to be through."""
    network: str | None = None
    """The network of containers, as for the local control plane. None: no network, where this machine allows that."""
    isolation: str | None = None
    runsc: Path | None = None


def run(options: Options, console: Console) -> int:
    """Run the demo. Return 0 if every task succeeded and ran in a Modal container, otherwise 1."""
    began = time.monotonic()

    def report(line: str) -> None:
        console.print(f"[dim]{time.monotonic() - began:6.1f} s[/]  {line}", highlight=False, soft_wrap=True)

    try:
        with ending_on_signals(), stack_of(options, lambda line: report(escape(line))) as stack:
            run_id = trigger(stack)
            report(f"DAG run {escape(run_id)} of {DEMO_DAG}: {stack.airflow.url}/dags/{DEMO_DAG}/runs/{run_id}")
            watch(stack, run_id, report, began + options.timeout)
            wrong = show_outcome(stack, run_id, console)
            stack.airflow.keep_logs = bool(wrong)
            for problem in wrong:
                console.print(f"[red]✗[/] {escape(problem)}", highlight=False, soft_wrap=True)
            if not wrong:
                took = time.monotonic() - began
                console.print(f"[green]✓[/] every task succeeded in a Modal container ({took:.0f} s)", highlight=False)
            if options.keep:
                keep(stack, console)
    except (StackError, StartError, AirflowAPIError) as error:
        console.print("[bold red]The demo failed[/]: ", end="")
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        return 1
    return 1 if wrong else 0


@contextmanager
def stack_of(options: Options, report: Say) -> Iterator[ModalStack]:
    """Run Airflow on a local control plane, its containers without a network if possible and nothing else is asked."""

    def stack(network: str) -> ModalStack:
        modal = ModalOptions(network=network, isolation=options.isolation, runsc=options.runsc)
        return ModalStack(example_dags(), modal=modal, report=report)

    with ExitStack() as entered:
        try:
            running = entered.enter_context(stack(options.network or "none"))
        except NoNetworkError as error:
            if options.network:
                raise
            report(f"containers share the network of this machine: {error}")
            running = entered.enter_context(stack("host"))
        yield running


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP end the demo as Ctrl-C does, with all its processes.

    The first one ends it. Later ones have no effect: `make` forwards its signal, so a second one often follows, and
    would interrupt the cleanup.
    """

    def end(number: int, _frame: FrameType | None) -> NoReturn:
        for each in before:
            signal.signal(each, _ignore)
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Do nothing. (Started programs would inherit SIG_IGN.)"""


def trigger(stack: ModalStack) -> str:
    """Create the DAG's requirements, and start a run with a logical date."""
    api = stack.airflow.api
    api.set_variable("modalflow_demo_greeting", "Good morning")
    api.set_connection("modalflow_demo_warehouse", "generic", host="warehouse.example.com")
    stack.airflow.wait_for_dag(DEMO_DAG)
    api.unpause(DEMO_DAG)
    return api.trigger(DEMO_DAG, datetime(2026, 1, 2, tzinfo=UTC))


def watch(stack: ModalStack, run_id: str, report: Say, deadline: float) -> None:
    """Print changes until the DAG run is over. Raises StackError with the hanging part after the time limit.

    Without a control plane, it is over when Airflow has noticed the end of all tasks.
    """
    seen: dict[str, tuple[str | None, int]] = {}
    while True:
        state = stack.airflow.api.run_state(DEMO_DAG, run_id)
        instances = stack.airflow.api.task_instances(DEMO_DAG, run_id)
        for instance in instances:
            now = (instance.state, instance.try_number)
            if instance.state and seen.get(instance.id) != now:
                seen[instance.id] = now
                tried = f" (try {instance.try_number})" if instance.try_number > 1 else ""
                report(f"{instance.label:<18} [{STYLES.get(instance.state, 'default')}]{instance.state}[/]{tried}")
        if state in ("success", "failed"):
            report(f"the DAG run ended: [{STYLES[state]}]{state}[/]")
            return
        stack.check()
        if stack.control_plane_is_gone and not any(instance.state == "running" for instance in instances):
            report("no task is left running")
            return
        if time.monotonic() > deadline:
            raise StackError(f"the DAG run was not through in time.\n{what_hangs(stack, instances)}")
        time.sleep(POLL)


def what_hangs(stack: ModalStack, instances: Sequence[TaskInstance]) -> str:
    """Return the unfinished task instances, with the most informative log for each state."""
    hanging = [instance for instance in instances if instance.state not in ENDED]
    lines = ["What hangs:"]
    lines += [f"  {instance.label}: {instance.state or 'waiting for others'}" for instance in hanging]
    blamed = {RESPONSIBLE.get(instance.state, "scheduler") for instance in hanging if instance.state} or {"scheduler"}
    lines.append(stack.airflow.reports(sorted(blamed)))
    running = next((instance for instance in hanging if instance.state == "running"), None)
    if running is not None and not stack.control_plane_is_gone:
        lines.append(f"--- log of {running.label}, last lines:")
        lines += log_tail(stack, running)
    return "\n".join(lines)


def show_outcome(stack: ModalStack, run_id: str, console: Console) -> list[str]:
    """Print the table and a log. Return the problems."""
    rows = stack.rows(DEMO_DAG, run_id)
    console.print()
    console.print(table(rows))
    if troubles := stack.airflow.api.troubles(DEMO_DAG, run_id):
        console.print("\n[bold]Airflow's reasons for interrupted tries[/]")
        for trouble in troubles:
            console.print(f"  {trouble}", markup=False, highlight=False, soft_wrap=True)
    if stack.control_plane_is_gone:
        console.print("\nThe logs of the tasks were on one of its Volumes, and are gone with it.\n")
        left = ", ".join(row.instance.label for row in rows if row.problems(EXPECTED_SKIPPED))
        return [f"the local control plane ended during the run; unsuccessful tasks: {left or 'none'}"]
    shown = [row.instance for row in rows if row.instance.state == "failed"]
    shown = shown or [row.instance for row in rows if row.instance.task_id == SHOWN_TASK]
    for instance in shown[:3]:
        console.print(f"\n[bold]The log of {instance.label}, as Airflow's API returns it[/] (its last lines)")
        for line in log_tail(stack, instance):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)
    console.print()
    return problems(rows) or ([] if rows else ["the DAG run has no task instances"])


def log_tail(stack: ModalStack, instance: TaskInstance) -> list[str]:
    """Return the last lines of a task's log."""
    return stack.airflow.api.log(DEMO_DAG, instance.run_id, instance)[-LOG_LINES:]


def keep(stack: ModalStack, console: Console) -> None:
    """Leave everything up until the user has seen enough."""
    console.print(f"Airflow stays up: [bold]{stack.airflow.url}[/] (no login needed; reachable from this machine only)")
    console.print(f"The control plane stays up: {stack.local.url}. Logs of every process: {stack.airflow.logs}")
    variables = stack.airflow.folder / "variables.sh"
    write_variables(variables, stack.airflow.env)
    use = f"To use it from another shell: [bold]. {variables}[/], then e.g. [bold]modalflow status[/]"
    console.print(use, highlight=False, soft_wrap=True)
    console.print(f"To stop all of it: Ctrl-C here, or [bold]kill {os.getpid()}[/]\n", highlight=False)
    try:
        while True:
            stack.check()
            time.sleep(POLL)
    except (KeyboardInterrupt, SystemExit):
        console.print("Stopping…")
    finally:
        variables.unlink(missing_ok=True)


def write_variables(path: Path, env: Mapping[str, str]) -> None:
    """Write a shell script, only for this user, with the variables for `airflow` and `modalflow` on the demo."""
    lines = [
        f"export {name}={shlex.quote(env[name])}" for name in sorted(env) if name.startswith(("AIRFLOW_", "MODAL_"))
    ]
    lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
    path.touch(mode=0o600)
    path.write_text("\n".join(lines) + "\n")
