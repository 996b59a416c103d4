"""The standard error of a relay process, as lines of the scheduler's log; the last one may be the reason of its end.

A pipe that asyncio's subprocess does not know: with a pipe of its own, its ``wait`` could depend on the close of all
copies, and a process that LocalExecutor forks from the scheduler keeps one open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from types import TracebackType

from modalflow.executor.reporting.loggers import logger

log = logger(__name__)

#: Seconds for the rest of the output after the end of the process.
REST = 1.0
#: Bytes of a line. Of a longer one, the relay's reader drops what it has.
LONGEST = 64 * 1024
#: The beginning of a relay's own log lines: the log of the scheduler adds its own time.
_LOGGED = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ (DEBUG|INFO|WARNING|ERROR|CRITICAL) ")


class RelayOutput:
    """The output of one relay process; a context."""

    def __init__(self, number: int) -> None:
        self.reason = ""
        """The last line, if it can be the reason of the end."""
        self._number = number
        self._reading: asyncio.Task[None] | None = None
        self._transport: asyncio.ReadTransport | None = None
        self._write_end = -1

    async def __aenter__(self) -> RelayOutput:
        read_end, self._write_end = os.pipe()
        reader = asyncio.StreamReader(LONGEST)
        self._transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read_end, "rb")
        )
        self._reading = asyncio.create_task(self._read(reader))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.started()
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)
        if self._transport is not None:
            self._transport.close()

    @property
    def write_end(self) -> int:
        """The file descriptor for the process."""
        return self._write_end

    def started(self) -> None:
        """Close the end of the process in this process."""
        if self._write_end >= 0:
            os.close(self._write_end)
            self._write_end = -1

    async def rest(self) -> None:
        """Read the rest after the end of the process."""
        if self._reading is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REST):
                    await asyncio.shield(self._reading)

    async def _read(self, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                line = await reader.readline()
            except ValueError:
                # Longer than the limit.
                continue
            if not line:
                return
            if text := line.decode(errors="replace").rstrip():
                self._pass_on(text)

    def _pass_on(self, line: str) -> None:
        found = _LOGGED.match(line)
        level = logging.getLevelNamesMapping()[found[1]] if found else logging.INFO
        text = line[found.end() :] if found else line
        if not found and text.startswith("Error: "):
            level = logging.ERROR
        self.reason = text if level >= logging.ERROR or not found else ""
        log.log(level, "Relay %s: %s", self._number, text)
