"""The container's hold on one zygote: start it, give it orders, learn how they ended.

Lives in the container's main process, on its event loop; must not import Airflow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from modalflow.worker.zygote import processes
from modalflow.worker.zygote.process import ZygoteProcess
from modalflow.worker.zygote.protocol import Ending, Order, encode, ending_from

log = logging.getLogger(__name__)

#: The longest line a zygote sends.
_LINE_LIMIT = 1 << 20

#: Seconds before a zygote that has not read what it was sent is sent more.
_FULL_PAUSE = 0.01


class ZygoteEndedError(Exception):
    """The zygote ended while it had orders."""


@dataclass
class _Pending:
    ending: asyncio.Future[Ending]
    pid: int | None = None


@dataclass
class _Running:
    zygote: ZygoteProcess
    sender: socket.socket
    """Not the one that is listened to, since asyncio's cannot send files."""
    writer: asyncio.StreamWriter
    listener: asyncio.Task[None] | None = None
    pending: dict[str, _Pending] = field(default_factory=dict)

    def hang_up(self) -> None:
        """Let the zygote read the end of its orders."""
        self.sender.close()
        self.writer.close()


class Nursery:
    """One zygote at a time: started by the first order at the latest, and again by the next one after it ended."""

    def __init__(self, env: Mapping[str, str], *, airflow: bool, started: ZygoteProcess | None = None) -> None:
        """``started`` is a zygote with this environment that is there already."""
        self._env = dict(env)
        self._airflow = airflow
        self._ready_made = started
        self._starting = asyncio.Lock()
        self._running: _Running | None = None

    @property
    def is_busy(self) -> bool:
        return self._running is not None and bool(self._running.pending)

    async def run(self, order: Order) -> Ending:
        """Have an order carried out and return how it ended; raise ZygoteEndedError if that cannot be known."""
        running = await self._started()
        pending = _Pending(asyncio.get_running_loop().create_future())
        running.pending[order.id] = pending
        try:
            await _hand_over(running, order)
            return await asyncio.shield(pending.ending)
        except ConnectionError as error:
            raise ZygoteEndedError("The zygote ended before it took the order.") from error

    async def wait(self, order_id: str) -> Ending | None:
        """Return when the order is no longer under way: how it ended, where that is known."""
        if self._running is None or (pending := self._running.pending.get(order_id)) is None:
            return None
        await asyncio.wait([pending.ending])
        return None if pending.ending.exception() else pending.ending.result()

    async def interrupt(self, order_id: str) -> None:
        """Ask an order's process to end (SIGTERM)."""
        await self._tell({"do": "interrupt", "id": order_id})

    async def kill(self, order_id: str) -> None:
        """Kill an order's process and everything that it started."""
        await self._tell({"do": "kill", "id": order_id})

    def kill_zygote(self) -> None:
        """End a zygote that does not answer, and with it whatever it runs."""
        if self._running is not None:
            self._running.zygote.process.kill()

    async def close(self) -> None:
        """End the zygote, and with it whatever it runs."""
        if self._ready_made is not None:
            await self._started()
        running, self._running = self._running, None
        if running is not None:
            running.hang_up()
            await running.zygote.ended()
            if running.listener is not None:
                await running.listener

    async def _tell(self, message: Mapping[str, object]) -> None:
        if self._running is not None:
            try:
                await _send(self._running, message)
            except ConnectionError:
                log.info("The zygote ended before it could be told to %s.", message["do"])

    async def _started(self) -> _Running:
        async with self._starting:
            if self._running is None or not self._running.zygote.is_alive:
                ready_made, self._ready_made = self._ready_made, None
                if ready_made is None or not ready_made.is_alive:
                    ready_made = ZygoteProcess.start(self._env, airflow=self._airflow)
                self._running = await self._listen_to(ready_made)
            return self._running

    async def _listen_to(self, zygote: ZygoteProcess) -> _Running:
        sender = zygote.control.dup()
        sender.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=zygote.control, limit=_LINE_LIMIT)
        running = _Running(zygote, sender, writer)
        running.listener = asyncio.create_task(self._listen(reader, running))
        return running

    async def _listen(self, reader: asyncio.StreamReader, running: _Running) -> None:
        try:
            while line := await reader.readline():
                _note(running, json.loads(line))
        except ConnectionError:
            log.info("The connection to the zygote broke.")
        running.hang_up()
        code = await running.zygote.ended()
        if self._running is running:
            self._running = None
        pids = [pending.pid for pending in running.pending.values() if pending.pid is not None]
        if pids:
            # The zygote took its children with it; theirs may be left.
            processes.kill_family(pids)
        for pending in running.pending.values():
            error = ZygoteEndedError(f"The zygote ended with {processes.describe_exit(code)}.")
            pending.ending.set_exception(error)
            pending.ending.exception()  # Whoever waited may have been cancelled; then nobody else asks for it.
        running.pending.clear()


def _note(running: _Running, message: Mapping[str, object]) -> None:
    pending = running.pending.get(str(message.get("id")))
    if pending is None:
        return
    if message["event"] == "started":
        pending.pid = int(str(message["pid"]))
    else:
        del running.pending[str(message["id"])]
        pending.ending.set_result(ending_from(message))


async def _hand_over(running: _Running, order: Order) -> None:
    """Send an order through a socket of its own.

    Whatever a zygote has read stays in the memory of all that it forks later; tokens and variables must not.
    """
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            await _send(running, {"do": "run", "id": order.id, "kind": order.kind}, [theirs.fileno()])
        ours.setblocking(False)
        # Who ends without reading it all is told of by the zygote.
        with contextlib.suppress(ConnectionError):
            await asyncio.get_running_loop().sock_sendall(ours, encode(asdict(order)))


async def _send(running: _Running, message: Mapping[str, object], files: Sequence[int] = ()) -> None:
    line = encode(message)
    while running.sender.fileno() >= 0:
        try:
            # Lines this short are sent whole or not at all.
            socket.send_fds(running.sender, [line], files)
        except BlockingIOError:
            await asyncio.sleep(_FULL_PAUSE)
        else:
            return
    raise ConnectionError("The zygote has ended.")
