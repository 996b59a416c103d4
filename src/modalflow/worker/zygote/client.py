"""The connection of a container's main process to one zygote: start it, send it requests, receive the results.

Lives in the container's main process, on its event loop. Must not import Airflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from modalflow.support import linux
from modalflow.worker.gvisor import heap
from modalflow.worker.zygote.protocol import (
    ForkRequest,
    ForkResult,
    ImportReport,
    encode,
    report_from_wire,
    result_from_wire,
)

log = logging.getLogger(__name__)

#: The longest line that a zygote sends.
_LINE_LIMIT = 1 << 20

#: Seconds between SIGTERM and SIGKILL. Airflow's supervisor gives a task as long to run its on_kill().
TERM_GRACE = 5.0

#: Seconds that a zygote has to report the end of a process that it was asked to kill.
KILL_GRACE = 5.0

#: Seconds between two attempts to send to a zygote that has not read the earlier messages.
_FULL_PAUSE = 0.01


class ZygoteEndedError(Exception):
    """The zygote ended while it had requests. ``killed`` says that a signal ended it after it could fork."""

    def __init__(self, message: str, *, killed: bool = False) -> None:
        super().__init__(message)
        self.killed = killed


@dataclass(frozen=True)
class ZygoteProcess:
    """A zygote that was started, and this end of the socket to it. Needs no event loop."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def start(cls, env: Mapping[str, str], *, airflow: bool) -> ZygoteProcess:
        """Start a zygote; with ``airflow`` it imports Airflow before it accepts its first request."""
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "modalflow.worker.zygote.server",
                    str(theirs.fileno()),
                    *(["--airflow"] if airflow else []),
                ],
                stdin=subprocess.DEVNULL,
                env={**(heap.variables() if airflow else {}), **env},
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self, timeout: float) -> bool:
        """Wait until the zygote has finished its imports; return False if it ends before, or after ``timeout`` seconds.

        Call it before anything else reads from the socket.
        """
        self.control.settimeout(timeout)
        try:
            # The message stays in the socket: it is for the client that reads there later.
            return bool(self.control.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
        finally:
            self.control.settimeout(None)

    async def ended(self) -> int:
        """Wait for the zygote's end, and return its exit code."""
        return await asyncio.to_thread(self.process.wait)


@dataclass
class _Pending:
    result: asyncio.Future[ForkResult]
    pid: int | None = None


@dataclass
class _Connection:
    zygote: ZygoteProcess
    sender: socket.socket
    """A duplicate of the socket: asyncio cannot send open files through its own."""
    writer: asyncio.StreamWriter
    listener: asyncio.Task[None] | None = None
    pending: dict[str, _Pending] = field(default_factory=dict)
    waiting: int = 0
    """Number of callers waiting for its imports."""
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the zygote can fork, or has ended."""
    ready_at: float = 0.0
    """When it could, in seconds since the epoch."""
    imported: ImportReport = field(default_factory=ImportReport)

    def close(self) -> None:
        """Let the zygote read the end of its requests."""
        self.sender.close()
        self.writer.close()


class ZygoteClient:
    """One zygote at a time. The first request starts it, and the next request after its end starts another one."""

    def __init__(self, env: Mapping[str, str], *, airflow: bool, started: ZygoteProcess | None = None) -> None:
        """``started`` is a zygote with this environment that runs already."""
        self.env = dict(env)
        self._airflow = airflow
        self._prestarted = started
        self._starting = asyncio.Lock()
        self._connection: _Connection | None = None

    @property
    def is_busy(self) -> bool:
        return self._connection is not None and bool(self._connection.pending or self._connection.waiting)

    async def fork(self, request: ForkRequest) -> ForkResult:
        """Have the zygote fork a process for a request, wait for its end, and return the result.

        Raises ZygoteEndedError if the zygote ends before it reports one.
        """
        connection = await self._connect()
        pending = _Pending(asyncio.get_running_loop().create_future())
        connection.pending[request.id] = pending
        try:
            await _send_request(connection, request)
            return await asyncio.shield(pending.result)
        except ConnectionError as error:
            raise ZygoteEndedError("The zygote ended before it received the request.") from error

    async def ready(self) -> float:
        """Wait until the zygote can fork, or has ended; return since when, in seconds since the epoch."""
        connection = await self._connect()
        await connection.ready.wait()
        return connection.ready_at

    async def imported(self) -> ImportReport:
        """Wait until the zygote can fork; return its report on its imports.

        Raises ZygoteEndedError if it ends before.
        """
        connection = await self._connect()
        connection.waiting += 1
        try:
            await connection.ready.wait()
        finally:
            connection.waiting -= 1
        if not connection.ready_at:
            code = await connection.zygote.ended()
            raise ZygoteEndedError(f"The zygote ended with {linux.describe_exit(code)} before its first process.")
        return connection.imported

    async def wait(self, request_id: str) -> ForkResult | None:
        """Wait for the end of a request; return None if it is not in progress, or if its result is unknown."""
        if self._connection is None or (pending := self._connection.pending.get(request_id)) is None:
            return None
        await asyncio.wait([pending.result])
        return None if pending.result.exception() else pending.result.result()

    def pid_of(self, request_id: str) -> int | None:
        """Return the PID of the process of a request; None if it is not in progress, or has no process yet."""
        pending = self._connection.pending.get(request_id) if self._connection is not None else None
        return pending.pid if pending is not None else None

    async def stop(self, request_id: str, *, notice: bool) -> ForkResult | None:
        """End a request, by force if it does not end in time, and return the result as ``wait`` does.

        ``notice`` is that of ``interrupt``.
        """
        await self.interrupt(request_id, notice=notice)
        try:
            async with asyncio.timeout(TERM_GRACE):
                return await self.wait(request_id)
        except TimeoutError:
            await self.kill(request_id)
            try:
                async with asyncio.timeout(KILL_GRACE):
                    return await self.wait(request_id)
            except TimeoutError:
                # The work may have stopped the zygote (SIGSTOP).
                self.kill_zygote()
                return await self.wait(request_id)

    async def interrupt(self, request_id: str, *, notice: bool = False) -> None:
        """Ask the process of a request to end (SIGTERM); ``notice`` lets it leave a failure to the executor."""
        await self._send({"do": "stop" if notice else "interrupt", "id": request_id})

    async def kill(self, request_id: str) -> None:
        """Kill the process of a request and everything that it started."""
        await self._send({"do": "kill", "id": request_id})

    async def rest(self) -> None:
        """Release what the zygote keeps for its next request: another one may never come."""
        await self._send({"do": "rest"})

    def kill_zygote(self) -> None:
        """Kill a zygote that does not answer, and with it everything that it runs."""
        if self._connection is not None:
            self._connection.zygote.process.kill()

    async def close(self) -> None:
        """End the zygote, and with it everything that it runs."""
        if self._prestarted is not None:
            await self._connect()
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()
            await connection.zygote.ended()
            if connection.listener is not None:
                await connection.listener

    async def _send(self, message: Mapping[str, object]) -> None:
        if self._connection is not None:
            try:
                await _send(self._connection, message)
            except ConnectionError:
                log.info("The zygote ended before it received %r.", message["do"])

    async def _connect(self) -> _Connection:
        async with self._starting:
            if self._connection is None or not self._connection.zygote.is_alive:
                zygote, self._prestarted = self._prestarted, None
                if zygote is None or not zygote.is_alive:
                    zygote = ZygoteProcess.start(self.env, airflow=self._airflow)
                self._connection = await self._open(zygote)
            return self._connection

    async def _open(self, zygote: ZygoteProcess) -> _Connection:
        sender = zygote.control.dup()
        sender.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=zygote.control, limit=_LINE_LIMIT)
        connection = _Connection(zygote, sender, writer)
        connection.listener = asyncio.create_task(self._listen(reader, connection))
        return connection

    async def _listen(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        try:
            while line := await reader.readline():
                _receive(connection, json.loads(line))
        except ConnectionError:
            log.info("The connection to the zygote broke.")
        except Exception:  # Whoever waits for the zygote must not wait forever.
            log.exception("A message of the zygote could not be read")
            connection.zygote.process.kill()
        connection.close()
        connection.ready.set()
        code = await connection.zygote.ended()
        if self._connection is connection:
            self._connection = None
        pids = [pending.pid for pending in connection.pending.values() if pending.pid is not None]
        if pids:
            # The zygote's children ended with it, but theirs may be left.
            linux.kill_family(pids)
        for pending in connection.pending.values():
            killed = code < 0 and bool(connection.ready_at)
            error = ZygoteEndedError(f"The zygote ended with {linux.describe_exit(code)}.", killed=killed)
            pending.result.set_exception(error)
            pending.result.exception()  # The caller may have been cancelled; then no one else retrieves it.
        connection.pending.clear()


def _receive(connection: _Connection, message: Mapping[str, object]) -> None:
    if message["event"] == "ready":
        connection.ready_at = time.time()
        connection.imported = report_from_wire(message)
        connection.ready.set()
    pending = connection.pending.get(str(message.get("id")))
    if pending is None:
        return
    if message["event"] == "started":
        pending.pid = int(str(message["pid"]))
    else:
        del connection.pending[str(message["id"])]
        pending.result.set_result(result_from_wire(message))


async def _send_request(connection: _Connection, request: ForkRequest) -> None:
    """Send a request through a socket of its own.

    Whatever a zygote has read stays in the memory of all processes that it forks later. That must not include tokens
    and variables.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await _send(connection, {"do": "fork", "id": request.id, "kind": request.kind}, [theirs.fileno()])
        ours.setblocking(False)
        # If the process ends before it has read everything, the zygote reports that.
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(ours, encode(asdict(request)))


async def _send(connection: _Connection, message: Mapping[str, object], files: Sequence[int] = ()) -> None:
    line = encode(message)
    while connection.sender.fileno() >= 0:
        try:
            # Lines this short are sent whole or not at all.
            socket.send_fds(connection.sender, [line], files)
        except BlockingIOError:
            await asyncio.sleep(_FULL_PAUSE)
        else:
            return
    raise ConnectionError("The zygote has ended.")
