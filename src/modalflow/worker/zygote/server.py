"""The zygote: a process with one thread that forks a process for each workload or command.

``python -m modalflow.worker.zygote.server FD [--airflow]``: FD is a socket to the container's main process. With
``--airflow`` it imports Airflow first, once, so that a workload starts in milliseconds. While it has nothing to do, it
forks the process of the next request (``prepared``). If the other side closes the socket, the zygote ends, and with it
everything that it started. It must not start a thread or log a request. It does not import Airflow itself:
``supervised`` and ``warmup`` do.
"""

from __future__ import annotations

# Before Airflow: its lock must be made anew in a fork before a fork's hook of OpenTelemetry uses it. Airflow registers
# that hook with `[traces] otel_on`, and with `otel_service` it has not imported this module by then: each fork hung.
import concurrent.futures.thread  # noqa: F401
import dataclasses
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
from modalflow.support import linux
from modalflow.support.described import describe
from modalflow.support.text import clean
from modalflow.worker.gvisor.copies import copy_own_memory, list_own_memory
from modalflow.worker.gvisor.heap import in_one_piece
from modalflow.worker.run.command import run_command
from modalflow.worker.run.later_imports import without_libcst
from modalflow.worker.run.prepared_task import PreparedTask
from modalflow.worker.zygote import isolation
from modalflow.worker.zygote.imports import Imported, explain, load_plugins
from modalflow.worker.zygote.prepared import Order, PreparedFork
from modalflow.worker.zygote.protocol import (
    SIGNALS,
    ForkRequest,
    ForkResult,
    LineBuffer,
    Outcome,
    ProcessUsage,
    encode,
    parse_outcome_line,
    read_request,
    report_to_wire,
    result_to_wire,
)
from modalflow.worker.zygote.variables_read import VariablesRead

log = logging.getLogger(__name__)

#: The argument of a zygote without plugins: tasks load them.
_WITHOUT_PLUGINS = "--without-plugins"

#: The most open files that one read accepts from the socket; a request brings one.
_MOST_FILES = 16

#: Seconds without a request or a process before the process of the next request is forked. Only then, because it needs
#: processor time and, in gVisor, as much memory as a running one.
_IDLE = 0.05


@dataclass(frozen=True)
class Child:
    """A process that executes a request."""

    id: str
    kind: Kind
    pid: int
    outcome: int
    """The read end of the pipe to which it writes its outcome."""
    began_at: float
    """When it got the request, by the monotonic clock."""


class ZygoteServer:
    """The loop that reads requests, forks processes and reports results."""

    def __init__(self, control: socket.socket, imported: Imported) -> None:
        self._control = control
        self._imported = imported
        self._children: dict[int, Child] = {}
        self._prepared: PreparedFork | None = None
        # Before the first request, there may never be one: a container for commands has a zygote with Airflow too.
        self._prepares = False
        self._broken = False
        """A prepared process has ended for another reason."""
        self._lines = LineBuffer()
        self._request_files: deque[int] = deque()
        self._unreported_cpu = 0.0
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = socket.socketpair()
        for end in (self._wake_read, self._wake_write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake_write.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._selector.register(control, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)

    def serve(self) -> None:
        """Report that the zygote is ready, and serve until the container's main process closes the socket or ends."""
        self._send(report_to_wire(self._imported.report))
        try:
            while True:
                events = self._selector.select(_IDLE if self._is_idle() else None)
                if not events:
                    list_own_memory()  # For the fork, which copies it.
                    self._prepared = self._fork(ahead=True)
                for key, _ in events:
                    if key.fileobj is self._wake_read:
                        _drain(self._wake_read)
                        self._reap()
                    elif not self._read_messages():
                        return
        finally:
            linux.kill_family(self._own_children())

    def _is_idle(self) -> bool:
        return self._prepares and self._prepared is None and not self._children

    def _own_children(self) -> list[int]:
        return [*self._children, *([self._prepared.pid] if self._prepared is not None else [])]

    def _read_messages(self) -> bool:
        try:
            data, files, *_ = socket.recv_fds(self._control, 1 << 16, _MOST_FILES)
        except ConnectionError:
            return False
        self._request_files.extend(files)
        for line in self._lines.feed(data):
            self._handle(json.loads(line))
        return bool(data)

    def _handle(self, message: Mapping[str, Any]) -> None:
        if message["do"] == "rest":
            self._rest()
            return
        if message["do"] == "fork":
            self._begin(Order(message["id"], Kind(message["kind"])))
            return
        for child in self._children.values():
            if child.id == message["id"]:
                self._stop(child, message["do"])

    def _rest(self) -> None:
        """End the prepared process, and prepare none until there is a request again: another zygote is in use."""
        self._prepares = False
        prepared, self._prepared = self._prepared, None
        if prepared is not None:
            # It ends because it gets no order.
            prepared.close()

    def _stop(self, child: Child, how: str) -> None:
        if how == "kill":
            linux.kill_family([child.pid])
        for number in SIGNALS.get(how, ()):
            linux.send(child.pid, number)

    def _begin(self, order: Order) -> None:
        """Let a process execute the request whose file came first; fork it now if none is prepared."""
        if order.kind is not Kind.COMMAND and self._imported.problem:
            os.close(self._request_files.popleft())
            outcome = Outcome(State.FAILED, reason=clean(self._imported.problem))
            self._send(result_to_wire(ForkResult(order.id, 1, outcome)))
            return
        self._prepares = not self._broken
        prepared, self._prepared = self._prepared, None
        if prepared is None or not prepared.is_running():
            if prepared is not None:
                prepared.close()
            prepared = self._fork()
        request = self._request_files.popleft()
        self._children[prepared.pid] = Child(order.id, order.kind, prepared.pid, prepared.outcome, time.monotonic())
        prepared.begin(order, request)
        os.close(request)
        self._send({"event": "started", "id": order.id, "pid": prepared.pid})

    def _fork(self, *, ahead: bool = False) -> PreparedFork:
        """Fork a process that waits for its order; ``ahead`` says that it has time until then."""
        ours, theirs = socket.socketpair()
        outcome_read, outcome_write = os.pipe()
        for end in (outcome_read, outcome_write):
            os.set_blocking(end, False)
        zygote = os.getpid()
        pid = os.fork()
        if pid == 0:
            ours.close()
            os.close(outcome_read)
            self._execute_in_child(zygote, theirs, outcome_write, ahead=ahead)
        theirs.close()
        os.close(outcome_write)
        return PreparedFork(pid, ours, outcome_read)

    def _execute_in_child(self, zygote: int, orders: socket.socket, outcome: int, *, ahead: bool) -> NoReturn:
        """Execute the request that comes from ``orders`` in this forked process, and end the process."""
        code = 1
        name = "A prepared process"
        try:
            self._release()
            os.setsid()
            linux.die_with(zygote)
            linux.adopt_orphans()
            isolation.close_in_children(outcome)
            task = self._prepare(orders) if ahead else None
            order, request = Order.receive(orders)
            name = order.id
            if order.kind is Kind.WORKLOAD:
                result = _supervise_workload(read_request(request), task)
            else:
                if task is not None:
                    task.dismiss()
                result = _HANDLERS[order.kind](read_request(request))
            _write_outcome(outcome, result)
            code = 0
        except BaseException as error:  # A forked process must never return into the zygote's loop.
            log.exception("%s could not be executed", name)
            _write_outcome(outcome, Outcome(State.FAILED, reason=describe(error)))
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def _prepare(self, orders: socket.socket) -> PreparedTask | None:
        """Do in a forked process what needs no order; return the process of its task."""
        task = None
        if self._imported.airflow:
            from modalflow.worker.run import supervised

            task = supervised.prepare_task([orders])
        copy_own_memory(until=orders)
        return task

    def _release(self) -> None:
        """Release everything that belongs to the zygote: its signals, sockets and children."""
        signal.set_wakeup_fd(-1)
        isolation.reset_signals()
        self._selector.close()
        for end in (self._control, self._wake_read, self._wake_write):
            end.close()
        for descriptor in (*self._request_files, *(child.outcome for child in self._children.values())):
            os.close(descriptor)
        self._request_files.clear()
        self._children.clear()
        if self._prepared is not None:
            self._prepared.close()
            self._prepared = None

    def _reap(self) -> None:
        ended: list[tuple[Child, int, resource.struct_rusage]] = []
        any_ended = False
        for pid, code, usage in linux.reaped():
            any_ended = True
            if (child := self._children.pop(pid, None)) is not None:
                ended.append((child, code, usage))
            elif self._prepared is not None and self._prepared.pid == pid:
                # It could end again at once, so each request now forks its own.
                log.warning("The prepared process ended with %s", linux.describe_exit(code))
                self._prepared.close()
                self._prepared, self._prepares, self._broken = None, False, True
            else:
                self._unreported_cpu += usage.ru_utime + usage.ru_stime
        if any_ended:
            # An adopted orphan may have children too, and they are ours once it has ended.
            self._kill_orphans()
        for child, code, usage in ended:
            used = self._usage_of(child, usage)
            self._send(result_to_wire(ForkResult(child.id, code, _read_outcome(child.outcome), used)))

    def _usage_of(self, child: Child, usage: resource.struct_rusage) -> ProcessUsage:
        """Return what a child and the descendants that it waited for used, and what is not reported yet.

        That is the zygote's own CPU time, and that of orphans that ended here.
        """
        own = time.process_time()
        unreported, self._unreported_cpu = self._unreported_cpu + own, -own
        cpu = usage.ru_utime + usage.ru_stime + unreported
        return ProcessUsage(time.monotonic() - child.began_at, cpu, usage.ru_maxrss / 1024)

    def _kill_orphans(self) -> None:
        """Kill what a request left behind: a child that was not forked here was orphaned and adopted."""
        linux.kill_children_but(self._own_children())

    def _send(self, message: Mapping[str, Any]) -> None:
        try:
            self._control.sendall(encode(message))
        except OSError:
            # The main process is gone; the loop is about to read the end of the stream.
            return


def _drain(end: socket.socket) -> None:
    try:
        while end.recv(4096):
            pass
    except BlockingIOError:
        return


def _write_outcome(pipe: int, outcome: Outcome) -> None:
    # The outcome must fit into the pipe: the zygote reads it only after the process has ended.
    reason = clean(outcome.reason) if outcome.reason else None
    os.write(pipe, encode(asdict(outcome) | {"reason": reason}))


def _read_outcome(pipe: int) -> Outcome | None:
    try:
        # The process has ended, and wrote once and less than the pipe holds. So everything is here, or nothing.
        return parse_outcome_line(os.read(pipe, 1 << 16))
    except BlockingIOError:
        # A process that outlives its workload may still hold the write end.
        return None
    finally:
        os.close(pipe)


def _supervise_workload(request: ForkRequest, task: PreparedTask | None) -> Outcome:
    from modalflow.worker.run import supervised

    isolation.replace_environment(request.env)
    return supervised.supervise(request, task)


def _inspect_airflow(request: ForkRequest) -> Outcome:
    from modalflow.worker.run import airflow_probe

    isolation.replace_environment(request.env)
    return airflow_probe.inspect_airflow(request)


_HANDLERS = {Kind.COMMAND: run_command, Kind.PROBE: _inspect_airflow}


def _import_airflow(*, plugins: bool) -> Imported:
    """Import Airflow for the workloads, and the operator's code, as Airflow does at its start.

    Without ``plugins``, each task loads them for itself.
    """
    gc.disable()
    read = VariablesRead(os.environ.get("AIRFLOW_HOME", ""))
    try:
        with read.recording():
            from modalflow.worker.run import supervised
            from modalflow.worker.zygote import warmup

            warmup.warm_up()
            assert supervised  # Imported for the forks.
            warmup.import_preload(os.environ.get(PRELOAD_VARIABLE, ""))
            loaded = load_plugins(read) if plugins else Imported()
        report = dataclasses.replace(loaded.report, variables_read=frozenset(read.names))
        return dataclasses.replace(loaded, report=report, airflow=True)
    # SystemExit too: a zygote that ended here would be started again for each task.
    except (Exception, SystemExit) as error:
        log.exception("Airflow cannot be imported")
        return Imported(problem=explain(error, os.environ))
    finally:
        # Every fork shares the objects that exist now; the garbage collector would copy their memory by touching it.
        gc.freeze()
        gc.enable()


def _start_again_without_plugins(
    obstacle: str, arguments: list[str], control: socket.socket, env: Mapping[str, str]
) -> NoReturn:
    """Replace this process by a zygote without plugins: a fork would not have the thread of one, for example."""
    log.warning("A plugin %s when it is imported, so each task imports the plugins for itself", obstacle)
    control.set_inheritable(True)
    os.execve(sys.executable, [sys.executable, "-m", __spec__.name, *arguments, _WITHOUT_PLUGINS], env)


def main(arguments: list[str]) -> None:
    """Serve on the inherited socket."""
    # The container's main process decides when this one ends, by closing the socket.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    linux.adopt_orphans()
    del sys.argv[1:]
    control = socket.socket(fileno=int(arguments[0]))
    control.set_inheritable(False)
    env = dict(os.environ)
    imported = Imported()
    if "--airflow" in arguments:
        with in_one_piece(), without_libcst():
            imported = _import_airflow(plugins=_WITHOUT_PLUGINS not in arguments)
    if imported.obstacle:
        _start_again_without_plugins(imported.obstacle, arguments, control, env)
    ZygoteServer(control, imported).serve()


if __name__ == "__main__":
    main(sys.argv[1:])
