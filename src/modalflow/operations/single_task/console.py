"""The terminal of a task's debugger or shell. Its other end is ``worker.run.terminal.console`` in a container."""

from __future__ import annotations

import codecs
import contextlib
import hmac
import secrets
import socket
import threading
from collections.abc import Callable
from types import TracebackType

#: Bytes of one read.
_CHUNK = 65_536
#: The longest line with a token, and the seconds that a connection has to send it.
_LONGEST_TOKEN = 200
_TOKEN_WITHIN = 5.0
#: Seconds between two checks for the end, and for what an ended task has sent.
_PAUSE, _LAST_WORDS = 0.2, 5.0
_THREAD = "modalflow-console"


class Console:
    """Waits for the task on the loopback interface, and passes on lines, as long as a ``with`` block."""

    def __init__(self, mode: str, read_line: Callable[[], str], write: Callable[[str], object]) -> None:
        """``read_line`` returns the user's next line with its end, and an empty text at the end of the input."""
        self._mode, self._read_line, self._write = mode, read_line, write
        self._token = secrets.token_urlsafe(24)
        self._server: socket.socket | None = None
        self._changed = threading.Condition()
        self._current: socket.socket | None = None
        self._closing = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._reader: threading.Thread | None = None
        self.connections = 0
        """How often the task opened it."""

    @property
    def variable(self) -> str:
        """The value of the task's variable."""
        assert self._server is not None, "it listens within its with block"
        return f"{self._mode} {self._server.getsockname()[1]} {self._token}"

    def __enter__(self) -> Console:
        self._server = socket.create_server(("127.0.0.1", 0))
        self._server.settimeout(_PAUSE)
        # Reading from a terminal cannot be interrupted, so the threads do not keep the process.
        self._thread = threading.Thread(target=self._serve, args=(self._server,), name=_THREAD, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Show what the task has sent, and end."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_LAST_WORDS)
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._server is not None:
            self._server.close()

    def _serve(self, server: socket.socket) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except TimeoutError:
                if self._closing.is_set():
                    return
                continue
            except OSError:
                return
            with connection:
                if self._is_ours(connection):
                    self.connections += 1
                    self._converse(connection)

    def _is_ours(self, connection: socket.socket) -> bool:
        connection.settimeout(_TOKEN_WITHIN)
        given = b""
        try:
            # Byte by byte: what follows belongs to the conversation.
            while not given.endswith(b"\n") and len(given) < _LONGEST_TOKEN and (byte := connection.recv(1)):
                given += byte
        except OSError:
            return False
        connection.settimeout(None)
        return hmac.compare_digest(given.strip(), self._token.encode())

    def _converse(self, connection: socket.socket) -> None:
        with self._changed:
            self._current = connection
            self._changed.notify_all()
        if self._reader is None:
            self._reader = threading.Thread(target=self._send_lines, name=f"{_THREAD}-lines", daemon=True)
            self._reader.start()
        # A part can end within a character.
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        try:
            while part := connection.recv(_CHUNK):
                self._write(decoder.decode(part))
        except OSError:
            pass
        with self._changed:
            self._current = None
            self._changed.notify_all()

    def _send_lines(self) -> None:
        """Read the user's lines, each for the conversation of its time. At their end, end all conversations."""
        while line := self._read_line():
            if (current := self._next_but(None)) is None:
                return
            # The task may have ended its side.
            with contextlib.suppress(OSError):
                current.sendall(line.encode())
        ended: socket.socket | None = None
        while (ended := self._next_but(ended)) is not None:
            with contextlib.suppress(OSError):
                ended.shutdown(socket.SHUT_WR)

    def _next_but(self, ended: socket.socket | None) -> socket.socket | None:
        """Wait for a conversation other than this one; return None at the end of the console."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._current not in (None, ended))
            return None if self._closed else self._current
