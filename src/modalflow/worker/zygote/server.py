"""The zygote: a process with one thread that forks a process for each workload or command.

``python -m modalflow.worker.zygote.server FD [--airflow]``: FD is a socket to the container's main process, on which
orders come and endings go. With ``--airflow`` it imports Airflow first, once, so that a workload starts in
milliseconds. It ends when the other end of the socket is closed, and ends everything that it started with it. It must
not import Airflow itself (``run`` and ``warm`` do), start a thread, or log an order.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import resource
import selectors
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, NoReturn

from modalflow.names import PRELOAD_VARIABLE
from modalflow.protocol.messages import Kind, State
from modalflow.support.described import describe
from modalflow.support.text import clean
from modalflow.worker.run.command import run_command
from modalflow.worker.zygote import preload, processes, reset
from modalflow.worker.zygote.protocol import (
    Ending,
    Lines,
    Order,
    Outcome,
    Used,
    encode,
    ending_to_wire,
    order_from,
    outcome_line,
)

log = logging.getLogger(__name__)

#: Files that are taken from the socket at once; an order brings one.
_MOST_FILES = 16


@dataclass(frozen=True)
class Child:
    """A process that runs an order."""

    id: str
    kind: Kind
    pid: int
    outcome: int
    """The read end of the pipe into which it writes its outcome."""
    forked_at: float
    """By the monotonic clock."""


class Zygote:
    """The loop: orders in, forks, endings out."""

    def __init__(self, control: socket.socket, airflow_problem: str | None) -> None:
        self._control = control
        self._airflow_problem = airflow_problem
        self._children: dict[int, Child] = {}
        self._lines = Lines()
        self._order_files: deque[int] = deque()
        self._cpu_untold = 0.0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def serve(self) -> None:
        """Say that it is ready, and work until the container's main process closes the socket or ends."""
        self._tell({"event": "ready"})
        try:
            while True:
                for key, _ in self._selector.select():
                    if key.fileobj is self._wake_read:
                        _drain(self._wake_read)
                        self._reap()
                    elif not self._read_orders():
                        return
        finally:
            processes.kill_family([child.pid for child in self._children.values()])

    def _read_orders(self) -> bool:
        try:
            data, files, *_ = socket.recv_fds(self._control, 1 << 16, _MOST_FILES)
        except ConnectionError:
            return False
        self._order_files.extend(files)
        for line in self._lines.feed(data):
            self._obey(json.loads(line))
        return bool(data)

    def _obey(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "run":
            self._start(message["id"], Kind(message["kind"]), self._order_files.popleft())
            return
        for child in self._children.values():
            if child.id == message["id"]:
                self._interrupt(child, message["do"])

    def _interrupt(self, child: Child, how: str) -> None:
        if how == "kill":
            processes.kill_family([child.pid])
        else:
            # Airflow's supervisor passes it on to the task, whose on_kill() then runs; the keeper of a command to that.
            processes.send(child.pid, signal.SIGTERM)

    def _start(self, id: str, kind: Kind, order: int) -> None:
        if kind is not Kind.COMMAND and self._airflow_problem:
            os.close(order)
            outcome = Outcome(State.FAILED, reason=self._airflow_problem)
            self._tell(ending_to_wire(Ending(id, 1, outcome)))
            return
        outcome_read, outcome_write = os.pipe()
        for end in (outcome_read, outcome_write):
            os.set_blocking(end, False)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            os.close(outcome_read)
            self._become(id, kind, zygote, order, outcome_write)
        os.close(order)
        os.close(outcome_write)
        self._children[pid] = Child(id, kind, pid, outcome_read, time.monotonic())
        self._tell({"event": "started", "id": id, "pid": pid})

    def _become(self, id: str, kind: Kind, zygote: int, order: int, outcome: int) -> NoReturn:
        """Turn this forked process into the one that runs the order."""
        code = 1
        try:
            self._forget()
            os.setsid()
            processes.die_with(zygote)
            processes.adopt_orphans()
            reset.keep_from_children(outcome)
            _write_outcome(outcome, _RUN[kind](_read_order(order)))
            code = 0
        except BaseException as error:  # A forked process must never return into the zygote's loop.
            log.exception("%s could not be run", id)
            _write_outcome(outcome, Outcome(State.FAILED, reason=describe(error)))
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _forget(self) -> None:
        """Let go of all that belongs to the zygote: its signals, sockets and children."""
        signal.set_wakeup_fd(-1)
        reset.reset_signals()
        self._selector.close()
        for end in (self._control, self._wake_read, self._wake_write):
            end.close()
        for descriptor in (*self._order_files, *(child.outcome for child in self._children.values())):
            os.close(descriptor)
        self._order_files.clear()
        self._children.clear()

    def _reap(self) -> None:
        ended: list[tuple[Child, int, resource.struct_rusage]] = []
        somebody = False
        while (found := _next_exit()) is not None:
            somebody = True
            pid, code, usage = found
            if (child := self._children.pop(pid, None)) is not None:
                ended.append((child, code, usage))
            else:
                self._cpu_untold += usage.ru_utime + usage.ru_stime
        if somebody:
            # A stranger's end too: what it had started is ours now.
            self._kill_strangers()
        for child, code, usage in ended:
            used = self._used(child, usage)
            self._tell(ending_to_wire(Ending(child.id, code, _read_outcome(child.outcome), used)))

    def _used(self, child: Child, usage: resource.struct_rusage) -> Used:
        """What a child and the descendants that it waited for used, and what nobody was told of yet: what this process
        used itself, and those whose parents had gone."""
        own = time.process_time()
        untold, self._cpu_untold = self._cpu_untold + own, -own
        cpu = usage.ru_utime + usage.ru_stime + untold
        return Used(time.monotonic() - child.forked_at, cpu, usage.ru_maxrss / 1024)

    def _kill_strangers(self) -> None:
        """End what an order left behind: whoever is our child now without having been forked here was orphaned."""
        processes.kill_children_but(self._children)

    def _tell(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(encode(message))
        except OSError:
            # The main process is gone; the loop is about to read the end of the stream.
            return


def _next_exit() -> tuple[int, int, resource.struct_rusage] | None:
    try:
        pid, status, usage = os.wait4(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    return (pid, os.waitstatus_to_exitcode(status), usage) if pid else None


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(4096):
            pass
    except BlockingIOError:
        return


def _write_outcome(pipe: int, outcome: Outcome) -> None:
    # An outcome must fit into a pipe that nobody reads until the process has ended.
    reason = clean(outcome.reason) if outcome.reason else None
    os.write(pipe, encode(asdict(outcome) | {"reason": reason}))


def _read_outcome(pipe: int) -> Outcome | None:
    try:
        # One write of less than a pipe's capacity, by a process that has ended: all of it is here, or nothing.
        return outcome_line(os.read(pipe, 1 << 16))
    except BlockingIOError:
        # A process that outlives its workload may still hold the write end.
        return None
    finally:
        os.close(pipe)


def _read_order(connection: int) -> Order:
    with open(connection, "rb") as file:
        return order_from(json.loads(file.read()))


def _run_workload(order: Order) -> Outcome:
    from modalflow.worker.run import supervised

    reset.take_environment(order.env)
    return supervised.run(order)


def _answer_probe(order: Order) -> Outcome:
    from modalflow.worker import airflow_view

    reset.take_environment(order.env)
    return airflow_view.look(order)


_RUN = {Kind.COMMAND: run_command, Kind.WORKLOAD: _run_workload, Kind.PROBE: _answer_probe}


def _import_airflow() -> str | None:
    """Import what workloads need; return what went wrong."""
    gc.disable()
    try:
        from modalflow.worker.run import supervised
        from modalflow.worker.zygote import warmup

        warmup.warm_up()
        assert supervised  # Imported for the forks.
        preload.import_all(os.environ.get(PRELOAD_VARIABLE, ""))
    except Exception as error:
        log.exception("Airflow cannot be imported")
        return f"Airflow cannot be imported in the container: {describe(error)}"
    finally:
        # What is there now will be shared by every fork: keep the collector from touching, and so copying, it.
        gc.freeze()
        gc.enable()
    return None


def main(arguments: list[str]) -> None:
    """Serve on the inherited socket."""
    # The container's main process decides when this one ends, by closing the socket.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    processes.adopt_orphans()
    del sys.argv[1:]
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    Zygote(control, _import_airflow() if "--airflow" in arguments else None).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
