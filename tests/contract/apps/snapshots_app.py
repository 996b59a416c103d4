"""An app whose containers are restored from memory snapshots. Each call has a container of its own."""

import os
import random
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import modal

app = modal.App("snapshots")

IMPORTED_BY, IMPORTED_AT = os.environ.get("MODAL_TASK_ID", ""), time.monotonic()
if IMPORTED_BY:
    Path("/tmp/of-the-import").write_text(IMPORTED_BY)

_UPPER = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"


class Background:
    """A process that answers lines, and a thread that counts."""

    def __init__(self) -> None:
        # It inherits no connection to the control plane, which would stay open.
        self._process = subprocess.Popen(
            [sys.executable, "-c", _UPPER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.ticks = 0
        threading.Thread(target=self._tick, daemon=True).start()

    def _tick(self) -> None:
        while True:
            time.sleep(0.01)
            self.ticks += 1

    def answer(self, line: str) -> str:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline().strip()

    def goes_on(self) -> bool:
        ticks, deadline = self.ticks, time.monotonic() + 10
        while self.ticks == ticks and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.ticks > ticks


background = Background() if IMPORTED_BY else None


def exchanged(address: tuple[str, int]) -> str:
    """The answer of a server, or the kind of error."""
    try:
        with socket.create_connection(address, 10) as connection:
            connection.sendall(b"hello")
            return connection.recv(100).decode()
    except OSError as error:
        return type(error).__name__


def raw_socket() -> str:
    """What a program gets that asks for the rights of the network's gateway."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW).close()
    except OSError as error:
        return type(error).__name__
    return "a raw socket"


@app.function(enable_memory_snapshot=True, single_use_containers=True)
def restored(server: tuple[str, int], other_server: tuple[str, int], content: bytes) -> tuple[dict[str, object], bytes]:
    assert background is not None
    seen = {
        "imported by": IMPORTED_BY,
        "file of the import": Path("/tmp/of-the-import").read_text(),
        "container": os.environ["MODAL_TASK_ID"],
        "since the import": time.monotonic() - IMPORTED_AT,
        "time": time.time(),
        "random": os.urandom(8).hex(),
        "python's random": random.random(),
        "host name": socket.gethostname(),
        "process": background.answer("an answer"),
        "threads go on": background.goes_on(),
        "server": exchanged(server),
        "other server": exchanged(other_server),
        "raw socket": raw_socket(),
        "nothing there": exchanged(("127.0.0.1", 1)),
    }
    return seen, content


@app.cls(enable_memory_snapshot=True, single_use_containers=True)
class Hooks:
    name: str = modal.parameter(default="")

    @modal.enter(snap=True)
    def first(self) -> None:
        self.seen = [f"snap {self.name} {os.environ['MODAL_TASK_ID']}"]

    @modal.enter(snap=False)
    def second(self) -> None:
        self.seen.append(f"enter {self.name} {os.environ['MODAL_TASK_ID']}")

    @modal.method()
    def so_far(self) -> list[str]:
        return self.seen


@app.cls(enable_memory_snapshot=True, single_use_containers=True)
class KeepsAConnection:
    """It cannot be written to a file: it has a connection to a socket of the machine."""

    to: str = modal.parameter()

    @modal.enter(snap=True)
    def connect(self) -> None:
        path = os.environ["MODAL_SERVER_URL"].removeprefix("unix://")
        path = path if self.to == "control plane" else "/__modal/volumes/restored/gateway.sock"
        self.connection = socket.socket(socket.AF_UNIX)
        if Path(path).exists():
            self.connection.connect(path)
        self.container = os.environ["MODAL_TASK_ID"]

    @modal.method()
    def containers(self) -> list[str]:
        return [self.container, os.environ["MODAL_TASK_ID"]]


@app.function(enable_memory_snapshot=True, single_use_containers=True)
def forwards(queue: modal.Queue) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with listener, modal.forward(listener.getsockname()[1], unencrypted=True) as tunnel:
        queue.put(tunnel.tcp_socket)
        connection, _ = listener.accept()
        with connection:
            connection.sendall(connection.recv(100).upper())
