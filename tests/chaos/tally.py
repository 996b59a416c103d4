"""What tasks really did: each execution says so to a server of the test's, outside of Airflow and of Modal.

The server also holds the gates: a task that has arrived is answered when the test wants it to go on. It must not know
what any task is for.
"""

from __future__ import annotations

import contextlib
import json
import selectors
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

#: The environment variable of a task that says where the server is.
VARIABLE = "CHAOS_TALLY"
GO = "go"


@dataclass(frozen=True)
class Visit:
    """One execution of one phase of a task: a side effect."""

    cell: str
    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    try_number: int
    phase: str
    container: str
    pid: int
    beside: bool = False
    """Whether another try of the task instance was being executed."""
    at: float = field(default_factory=time.time)

    @property
    def what(self) -> tuple[str, str, int, int, str]:
        """What must not happen twice."""
        return (self.run_id, self.task_id, self.map_index, self.try_number, self.phase)


class Tally:
    """A server in a thread; a context manager. Its address is a file: containers have no network.

    Connections are counted when their line has come; a line that is cut short by a kill does not count.
    """

    def __init__(self, address: Path) -> None:
        self.address = str(address)
        """The value of VARIABLE."""
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(self.address)
        self._server.listen(1024)
        self._wake_read, self._wake_write = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._serve, name="chaos-tally", daemon=True)
        self._visits: list[Visit] = []
        self._closed: set[tuple[str, str]] = set()
        self._answers: dict[tuple[str, str], str] = {}
        self._held: list[tuple[Visit, socket.socket]] = []
        self._ending = False

    def __enter__(self) -> Self:
        for end in (self._server, self._wake_read, self._wake_write):
            end.setblocking(False)
        self._selector.register(self._server, selectors.EVENT_READ)
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending = True
        self._wake()
        self._thread.join(10.0)

    def close(self, cell: str, *phases: str) -> None:
        """Hold whoever arrives at these phases of a cell's run."""
        with self._lock:
            self._closed.update((cell, phase) for phase in phases)

    def open(self, cell: str) -> None:
        """Let everybody of a cell go on, those who are still to come as well."""
        with self._lock:
            self._closed = {gate for gate in self._closed if gate[0] != cell}
        self._wake()

    def answer(self, cell: str, phase: str, answer: str) -> None:
        """What those at a phase are told, once their gate is open; GO where nothing else was said."""
        with self._lock:
            self._answers[cell, phase] = answer

    def visits(self, cell: str | None = None) -> list[Visit]:
        """What was done so far, by one cell's run or by all."""
        with self._lock:
            return [visit for visit in self._visits if cell is None or visit.cell == cell]

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._wake_write.send(b"!")

    def _serve(self) -> None:
        parts: dict[socket.socket, bytes] = {}
        while not self._ending:
            for key, _ in self._selector.select():
                if key.fileobj is self._server:
                    connection, _ = self._server.accept()
                    parts[connection] = b""
                    self._selector.register(connection, selectors.EVENT_READ)
                elif key.fileobj is self._wake_read:
                    self._wake_read.recv(4096)
                else:
                    self._read(key.fileobj, parts)
            self._answer_open()
        for known in [*parts, *(connection for _, connection in self._held), self._server]:
            known.close()
        self._selector.close()
        self._wake_read.close()
        self._wake_write.close()

    def _read(self, connection: Any, parts: dict[socket.socket, bytes]) -> None:
        try:
            data = connection.recv(65536)
        except OSError:
            data = b""
        parts[connection] += data
        if data and not parts[connection].endswith(b"\n"):
            return
        self._selector.unregister(connection)
        line = parts.pop(connection)
        if not data:
            connection.close()
            return
        visit = Visit(**json.loads(line))
        with self._lock:
            self._visits.append(visit)
            self._held.append((visit, connection))

    def _answer_open(self) -> None:
        with self._lock:
            ready = [held for held in self._held if (held[0].cell, held[0].phase) not in self._closed]
            self._held = [held for held in self._held if held not in ready]
            answers = dict(self._answers)
        for visit, connection in ready:
            # Whoever it was may have been killed since.
            with contextlib.suppress(OSError):
                connection.sendall(answers.get((visit.cell, visit.phase), GO).encode() + b"\n")
            connection.close()
