"""The connections of a container's gateway, and their end before a memory snapshot."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from modalflow.emulator.processes.sandboxes.inside.ways import Ways

#: Seconds for what takes milliseconds.
PATIENCE = 10.0


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    """The control plane's side, by which each connection is accepted."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()
        listener.settimeout(PATIENCE)
        yield listener


@contextlib.contextmanager
def in_thread(work: Callable[..., None], *arguments: object) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    yield thread
    thread.join(PATIENCE)
    assert not thread.is_alive()


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a TCP connection: a program's and the gateway's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = socket.create_connection(server.getsockname(), PATIENCE)
        with program:
            yield program, server.accept()[0]


def never() -> bool:
    return False


def close(ways: Ways) -> None:
    with ways.closed(never):
        pass


@pytest.mark.parametrize("is_idle", [True, False], ids=["idle", "with unread data"])
def test_no_connection_is_open_during_a_snapshot(tmp_path: Path, is_idle: bool) -> None:
    """A program's connection is reset, also if the program neither reads nor closes it, as a pool does."""
    ways = Ways(str(tmp_path / "socket"))
    with listening(tmp_path / "socket") as control_plane, connected() as (program, ours):
        with in_thread(ways.pass_on, ours, "192.0.2.1", 80):
            there, _ = control_plane.accept()
            with there:
                assert there.recv(100) == b'["connect", "192.0.2.1", 80]\n'
                there.sendall(b"+hello")
                assert program.recv(100) == b"hello"
                if not is_idle:
                    there.settimeout(0.2)
                    with contextlib.suppress(TimeoutError):
                        while True:
                            there.sendall(b"x" * 65536)
                with in_thread(close, ways) as closing:
                    closing.join(PATIENCE)
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            while program.recv(65536):
                pass
            program.send(b"after the end")


def test_a_snapshot_that_is_given_up_does_not_wait(tmp_path: Path) -> None:
    """A connection that does not end keeps no container waiting."""
    ways = Ways(str(tmp_path / "socket"))
    with listening(tmp_path / "socket") as control_plane:
        there = ways.open("connect", "192.0.2.1", 80)
        with control_plane.accept()[0]:
            with ways.closed(lambda: True), pytest.raises(ConnectionResetError):
                ways.open("connect", "192.0.2.1", 80)
            ways.remove(there)
