"""The faults of the matrix: how each begins, how long it lasts, how it ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Final

import modal

from modalflow.demo.modal_stack import DEPLOY_TIMEOUT
from modalflow.emulator.faults.fault_control import FaultError
from modalflow.names import Names
from tests.chaos.stack import APP, PATIENCE, SCHEDULERS, WORKER, Chaos
from tests.support import descendants, kill_host_of_containers, wait_until

Act = Callable[[Chaos, Random], None]


def _nothing(chaos: Chaos, random: Random) -> None:
    return None


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, once or for some seconds."""

    about: str
    begin: Act
    end: Act = _nothing
    lasts: float = 0.0
    held: float = 0.0
    """Seconds that all stay at their moments after it: who goes on tells Airflow its end without any scheduler."""


# Containers


def _containers(kind: str, value: str = "", **options: Any) -> Act:
    def begin(chaos: Chaos, random: Random) -> None:
        # There may be none, where the moment is one without.
        with contextlib.suppress(FaultError):
            chaos.stack.local.faults.now(kind, value, app=APP, **options)

    return begin


def _kill_host(chaos: Chaos, random: Random) -> None:
    kill_host_of_containers(chaos.stack.local.pid)


def _cut_off(seconds: float) -> tuple[Act, Act]:
    """Freeze all containers, and kill them later: their machine is silent until Modal gives it up."""

    def end(chaos: Chaos, random: Random) -> None:
        with contextlib.suppress(FaultError):
            chaos.stack.local.faults.now("kill", app=APP)

    return _containers("freeze", f"{seconds * 10:.0f}s"), end


def _zygotes(chaos: Chaos) -> list[int]:
    """The processes in the worker's containers that have imported Airflow and fork supervisors."""
    found = []
    for container in chaos.stack.local.faults.containers():
        if container.app == APP and container.pid is not None:
            below = descendants(container.pid)
            zygotes = [pid for pid, command in below.items() if "modalflow.worker.zygote.server" in command]
            # Its forks have its command line; it is the first of them, and listed before what is below it.
            found += zygotes[:1]
    return found


def _kill_below(levels: int) -> Act:
    """Kill zygotes (0), their supervisors (1), or the task processes of these (2)."""

    def begin(chaos: Chaos, random: Random) -> None:
        pids = _zygotes(chaos)
        for _ in range(levels):
            pids = [child for pid in pids for child in _children(pid)]
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    return begin


def _children(pid: int) -> list[int]:
    below = descendants(pid)
    deeper = {grandchild for child in below for grandchild in descendants(child)}
    return [child for child in below if child not in deeper]


# The control plane


def _rules(*specs: str) -> tuple[Act, Act]:
    """Rules of the control plane's for as long as the fault lasts."""

    def begin(chaos: Chaos, random: Random) -> None:
        for spec in specs:
            chaos.stack.local.faults.add(spec)

    def end(chaos: Chaos, random: Random) -> None:
        chaos.stack.local.faults.clear()

    return begin, end


def _while_it_lasts(about: str, lasts: float, *specs: str) -> Fault:
    begin, end = _rules(*specs)
    return Fault(about, begin, end, lasts)


def _kill_control_plane(chaos: Chaos, random: Random) -> None:
    chaos.kill_control_plane()


def _freeze_control_plane(containers: str) -> Act:
    def begin(chaos: Chaos, random: Random) -> None:
        chaos.stack.local.faults.now("stop", "20s", containers=containers)

    return begin


def _deploy(chaos: Chaos, random: Random) -> None:
    command = [sys.executable, "-m", "modalflow.cli", "deploy", WORKER]
    airflow = chaos.stack.airflow
    subprocess.run(command, env=airflow.env, cwd=airflow.home, timeout=DEPLOY_TIMEOUT, check=True, capture_output=True)


def _stop_app(chaos: Chaos, random: Random) -> None:
    command = [sys.executable, "-m", "modal", "app", "stop", "--yes", APP]
    airflow = chaos.stack.airflow
    subprocess.run(command, env=airflow.env, cwd=airflow.home, timeout=DEPLOY_TIMEOUT, check=True, capture_output=True)


def _clear_events(chaos: Chaos, random: Random) -> None:
    modal.Queue.from_name(Names().events, client=chaos.client).clear(all=True)


def _remove_entries(chaos: Chaos, random: Random) -> None:
    for work_id in chaos.entries():
        chaos.ledger.pop(work_id, None)


# The relays


def _kill_relays(chaos: Chaos, random: Random) -> None:
    for relay in chaos.relays():
        with contextlib.suppress(ProcessLookupError):
            os.kill(relay, signal.SIGKILL)


def _freeze_relay(chaos: Chaos, random: Random) -> None:
    for relay in random.sample(chaos.relays(), 1):
        os.kill(relay, signal.SIGSTOP)


def _thaw_relays(chaos: Chaos, random: Random) -> None:
    for relay in chaos.relays():
        with contextlib.suppress(ProcessLookupError):
            os.kill(relay, signal.SIGCONT)


def _rotate_relay_key(chaos: Chaos, random: Random) -> None:
    command = [sys.executable, "-m", "modalflow.cli", "relay", "rotate-key"]
    airflow = chaos.stack.airflow
    subprocess.run(command, env=airflow.env, cwd=airflow.home, timeout=PATIENCE, check=True, capture_output=True)


# Airflow


def _process(name: str, number: signal.Signals) -> Act:
    return lambda chaos, random: chaos.restart(name, number)


def _one_scheduler(number: signal.Signals) -> Act:
    return lambda chaos, random: chaos.restart(random.choice(SCHEDULERS), number)


def _both_schedulers(chaos: Chaos, random: Random) -> None:
    for name in random.sample(SCHEDULERS, 2):
        chaos.restart(name, signal.SIGKILL)


def _freeze_scheduler(chaos: Chaos, random: Random) -> None:
    """Which one is left to chance."""
    chaos.freeze_scheduler(random.choice(SCHEDULERS))


def _thaw_scheduler(chaos: Chaos, random: Random) -> None:
    chaos.thaw_scheduler()


def _airflow_is_well(chaos: Chaos, random: Random) -> None:
    chaos.start_what_ended()
    wait_until(chaos.all_well, PATIENCE * 2, "Airflow to be well", interval=0.5)


def _restart_postgres(chaos: Chaos, random: Random) -> None:
    chaos.restart_postgres()


RPC_SECONDS: Final = 6.0
#: Seconds after which a dead scheduler's work has been adopted: see QUICK.
TO_ADOPT: Final = 16.0

FAULTS: Final[Mapping[str, Fault]] = {
    "container_killed": Fault("every container of the worker is killed", _containers("kill")),
    "container_frozen": Fault("every container stands still for 20 s", _containers("freeze", "20s"), lasts=20.0),
    "container_preempted": Fault("every container is preempted", _containers("preempt", grace="1s")),
    "host_gone": Fault("the machine of all containers is gone, and another one starts", _kill_host),
    "host_cut_off": Fault("every container is silent for 20 s, then gone", *_cut_off(20.0), lasts=20.0),
    "killed_at_start": _while_it_lasts(
        "containers are killed as they start", 3.0, f"container/{APP}:kill,at=start,count=2"
    ),
    "crash_at_start": _while_it_lasts("containers crash as they start", 3.0, f"container/{APP}:crash-start,count=2"),
    "zygote_killed": Fault("the process that forks supervisors is killed", _kill_below(0)),
    "supervisor_killed": Fault("every supervisor is killed", _kill_below(1)),
    "task_killed": Fault("every task process is killed", _kill_below(2)),
    "plane_killed": Fault("the control plane is killed (-9) and started again", _kill_control_plane),
    "plane_frozen": Fault("the control plane answers nobody for 20 s", _freeze_control_plane("running"), lasts=20.0),
    "world_frozen": Fault("neither it nor any container moves for 20 s", _freeze_control_plane("frozen"), lasts=20.0),
    "spawn_unavailable": _while_it_lasts("spawns are refused", RPC_SECONDS, "FunctionMap:unavailable"),
    "spawn_answer_lost": _while_it_lasts(
        "spawns have their effect and no answer", RPC_SECONDS, "FunctionMap:unavailable-after"
    ),
    "spawn_connection_lost": _while_it_lasts(
        "the connection breaks after each spawn", RPC_SECONDS, "FunctionMap:lost-reply=disconnect,p=0.7"
    ),
    "spawn_exhausted": _while_it_lasts(
        "spawns are throttled", RPC_SECONDS, "FunctionMap:resource-exhausted,retry-after=2s"
    ),
    "ledger_unavailable": _while_it_lasts("the ledger refuses", RPC_SECONDS, "Dict*:unavailable"),
    "ledger_answer_lost": _while_it_lasts("the ledger's answers are lost", RPC_SECONDS, "Dict*:unavailable-after"),
    "ledger_slow": _while_it_lasts("the ledger takes 2 s for everything", RPC_SECONDS, "Dict*:delay=2s"),
    "ledger_removed": Fault("every entry of the ledger is removed", _remove_entries),
    "events_unavailable": _while_it_lasts("the Modal Queue refuses", RPC_SECONDS, "Queue*:unavailable"),
    "events_doubled": _while_it_lasts("events are put and the put fails", RPC_SECONDS, "QueuePut:internal-after,p=0.5"),
    "events_lost": _while_it_lasts(
        "events that are put are not there", RPC_SECONDS, f"queue/{Names().events}:lose-put"
    ),
    "events_taken": _while_it_lasts("events reach nobody", RPC_SECONDS, f"queue/{Names().events}:lose-get"),
    "events_cleared": Fault("every partition of events is lost", _clear_events),
    "volume_unavailable": _while_it_lasts("the logs Volume refuses", RPC_SECONDS, "Volume*:unavailable"),
    "volume_slow": _while_it_lasts(
        "logs are published 5 s late", RPC_SECONDS, f"volume/{Names().logs}:delay-commit=5s"
    ),
    "verdicts_unavailable": _while_it_lasts(
        "Modal does not say what became of calls", RPC_SECONDS, "FunctionGetOutputs:unavailable,for=clients"
    ),
    "everything_flaky": _while_it_lasts("a fifth of all calls fails", 8.0, "*:unavailable,p=0.2"),
    "everything_slow": _while_it_lasts("every call takes 300 ms longer", 8.0, "*:delay=300ms±200ms"),
    "credentials_refused": _while_it_lasts("no token is accepted", 8.0, "*:unauthenticated,for=clients"),
    "clock_behind": _while_it_lasts("Modal's clock is an hour behind", RPC_SECONDS, "clock:skew=-1h"),
    "clock_ahead": _while_it_lasts("Modal's clock is 8 days ahead: all expires", RPC_SECONDS, "clock:skew=8d"),
    "app_stopped": Fault("the app is stopped, and deployed again", _stop_app, _deploy, lasts=2.0),
    "app_redeployed": Fault("the app is deployed again", _deploy),
    "relays_killed": Fault(
        "every relay is killed (-9), and again as the tasks report their ends", _kill_relays, _kill_relays, lasts=1.0
    ),
    "relay_frozen": Fault("one of the relays stands still for 12 s", _freeze_relay, _thaw_relays, lasts=12.0),
    "relay_items_lost": _while_it_lasts(
        "a fifth of the relay's items is lost on its way in, and as many on their way out",
        RPC_SECONDS,
        f"queue/{Names().relay}:lose-put,p=0.2",
        f"queue/{Names().relay}:lose-get,p=0.2",
    ),
    "relay_items_doubled": _while_it_lasts(
        "half of the relay's items arrive twice", RPC_SECONDS, f"queue/{Names().relay}:double-put,p=0.5"
    ),
    "relay_items_late": _while_it_lasts(
        "the relay's items are up to 4 s late", RPC_SECONDS, f"queue/{Names().relay}:delay-put=2s±2s"
    ),
    "relay_key_rotated": Fault("the relay gets another key", _rotate_relay_key),
    "scheduler_killed": Fault(
        "one of the two schedulers is killed (-9)", _one_scheduler(signal.SIGKILL), held=TO_ADOPT
    ),
    "schedulers_killed": Fault("both schedulers are killed (-9)", _both_schedulers, held=TO_ADOPT),
    "scheduler_terminated": Fault("one scheduler gets SIGTERM, and is started again", _one_scheduler(signal.SIGTERM)),
    "scheduler_frozen": Fault(
        "one scheduler stands still until the other takes it for dead", _freeze_scheduler, _thaw_scheduler, 20.0
    ),
    "api_server_killed": Fault(
        "the API server is killed (-9)", _process("api-server", signal.SIGKILL), _airflow_is_well
    ),
    "triggerer_killed": Fault("the triggerer is killed (-9)", _process("triggerer", signal.SIGKILL), _airflow_is_well),
    "postgres_restarted": Fault("PostgreSQL is restarted", _restart_postgres, _airflow_is_well),
}
