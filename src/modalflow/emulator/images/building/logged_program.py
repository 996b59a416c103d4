"""One program of a build: its output line by line, its exit code, and its end with the build.

Owns the waiting, and the last lines for an error. The callers own the program and its root.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from modalflow.emulator.processes.container_spec import ContainerSpec, Isolation
from modalflow.emulator.processes.output import LONGEST_LINE
from modalflow.emulator.processes.process import Process

#: Lines of output in an error.
LAST_LINES = 12


class Programs(Protocol):
    """The interface to run programs isolated like a container; ForkServer implements it."""

    async def isolation(self) -> Isolation: ...

    async def overlays(self) -> str: ...

    async def launch(
        self, start: ContainerSpec, on_stdout: Callable[[str], None], on_stderr: Callable[[str], None]
    ) -> Process: ...


@dataclass(frozen=True)
class Ended:
    """The end of a program."""

    code: int
    last: Sequence[str]
    """The last lines of its output, each with its line end."""


async def run(programs: Programs, spec: ContainerSpec, log: Callable[[str], None]) -> Ended:
    """Run a program, and pass each whole line of its output to ``log``. When cancelled, end all its processes."""
    last: deque[str] = deque(maxlen=LAST_LINES)
    begun = {"stdout": "", "stderr": ""}

    def on_output(stream: str, text: str) -> None:
        line = begun[stream] + text
        begun[stream] = "" if line.endswith("\n") else line
        if not begun[stream] or len(line) >= LONGEST_LINE:
            begun[stream] = ""
            log(line)
            last.append(line)

    process = await programs.launch(
        spec, functools.partial(on_output, "stdout"), functools.partial(on_output, "stderr")
    )
    try:
        code = await process.wait()
    except BaseException:
        process.kill()
        await process.wait()
        raise
    for stream, rest in begun.items():
        if rest:
            on_output(stream, "\n")
    return Ended(code, tuple(last))
