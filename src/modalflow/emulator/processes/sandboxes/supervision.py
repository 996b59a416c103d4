"""The life of a sandbox of gVisor, in the second process of a container: start, checkpoint, restoration, end.

Owns the order of the commands of ``runsc`` and the exit code. If a checkpoint or a restoration fails, the container
starts without one, and its log has a line. Imports only what every new process has, because the template holds this
module for all containers.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import sys
from enum import Enum
from pathlib import Path
from typing import NoReturn, Protocol

from modalflow.emulator.processes.container_spec import RESTORE_FOLDER, Snapshot
from modalflow.emulator.processes.sandboxes.inside import NO_GATEWAY, RESTORED
from modalflow.support import linux

#: The signal that asks for the checkpoint of a container.
CHECKPOINT = signal.SIGUSR1

#: The signals that this process waits for.
AWAITED = frozenset((signal.SIGINT, signal.SIGTERM, signal.SIGCHLD, CHECKPOINT))

#: The parts of a snapshot's folder: a checkpoint in progress, a finished one, and the mark of one that failed.
IN_PROGRESS, FINISHED, FAILED = "incoming", "checkpoint", "failed"

#: The longest reason in a line of the log.
_LONGEST_REASON = 300


def mark_restored(folder: Path) -> None:
    """Make the mark of a restored container in the folder that it shares; OSError if the container prevents it."""
    # The container could put a symlink there, or a pipe, which would block.
    flags = os.O_CREAT | os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK
    os.close(os.open(folder / RESTORED, flags, 0o600))


class Start(Enum):
    """How a sandbox begins."""

    PLAIN = "plain"
    BEFORE_CHECKPOINT = "before checkpoint"
    """In a form that gVisor can write to a file."""
    RESTORED = "restored"


class Runsc(Protocol):
    """Starts ``runsc`` with a command for a sandbox that began in this way; returns the process id."""

    def __call__(self, start: Start, *command: str, log: Path | None = None) -> int: ...


class Supervision:
    """The supervision of one container's sandbox, which ends the process with the container's exit code."""

    def __init__(self, runsc: Runsc, name: str, bundle: Path, image: Path, snapshot: Snapshot | None) -> None:
        """``image`` is the folder of the snapshot's files; without ``snapshot`` there is none."""
        self._runsc, self._name, self._bundle, self._image = runsc, name, bundle, image
        self._snapshot = snapshot
        self._start = Start.PLAIN
        self._log = bundle / "errors.log"
        self._child = self._checkpoint = 0
        self._checkpointed: int | None = None
        """The exit code of the checkpoint's command."""
        self._ended = False
        self._stop = 0
        """The signal that came during the checkpoint."""

    def run(self) -> NoReturn:
        """Run the container, pass signals on to it, and end this process with its exit code."""
        if self._snapshot is None:
            self._begin(Start.PLAIN)
        else:
            self._begin(Start.RESTORED if self._snapshot.exists else Start.BEFORE_CHECKPOINT)
        while True:
            number = signal.sigwait(AWAITED)
            if number == CHECKPOINT:
                self._take()
            elif number != signal.SIGCHLD:
                self._pass_on(number)
            for ended in linux.reaped():
                self._on_end(ended.pid, 128 - ended.code if ended.code < 0 else ended.code)

    def _begin(self, start: Start) -> None:
        self._start, self._ended = start, False
        bundle = f"--bundle={self._bundle}"
        if start is Start.RESTORED:
            mark_restored(Path(RESTORE_FOLDER))
            image = f"--image-path={self._image / FINISHED}"
            self._child = self._runsc(start, "restore", image, bundle, self._name, log=self._log)
        else:
            self._child = self._runsc(start, "run", bundle, self._name)

    def _pass_on(self, number: int) -> None:
        if self._checkpoint:
            # In the snapshot, it would stop each container that is restored from it.
            self._stop = number
        else:
            # `runsc run` would end, and not pass it on.
            self._runsc(self._start, "kill", self._name, str(number))

    def _take(self) -> None:
        """Write the sandbox to a file, which ends it."""
        if self._start is not Start.BEFORE_CHECKPOINT or self._checkpoint:
            return
        image = f"--image-path={self._image / IN_PROGRESS}"
        # Each restoration would have to decompress it, which costs more than to read a larger file.
        self._checkpoint = self._runsc(
            self._start, "checkpoint", "--compression=none", image, self._name, log=self._log
        )

    def _on_end(self, pid: int, code: int) -> None:
        if pid == self._checkpoint:
            self._checkpointed = code
            if code:
                # It may go on, in an uncertain state.
                self._runsc(self._start, "kill", self._name, str(int(signal.SIGKILL)))
        elif pid == self._child:
            self._ended = True
        if not self._ended or (self._checkpoint and self._checkpointed is None):
            return
        if self._checkpoint:
            succeeded, self._checkpoint = self._checkpointed == 0, 0
            self._go_on(succeeded)
        elif self._start is Start.RESTORED and (reason := self._error()):
            self._without(f"a container cannot be restored from its memory snapshot ({reason})")
        elif self._start is Start.BEFORE_CHECKPOINT and code == NO_GATEWAY:
            self._without("a memory snapshot cannot be taken (its container has no network)")
        else:
            os._exit(code)

    def _go_on(self, succeeded: bool) -> None:
        """Go on after a checkpoint: restored from it, as any later container; or end if a signal came meanwhile."""
        if succeeded:
            (self._image / IN_PROGRESS).rename(self._image / FINISHED)
        if self._stop:
            os._exit(128 + self._stop)
        if not succeeded:
            self._without(f"a memory snapshot cannot be taken ({self._error() or 'no reason is known'})")
            return
        self._begin(Start.RESTORED)

    def _without(self, reason: str) -> None:
        with contextlib.suppress(OSError):
            # The disk may be full, or the function has another snapshot meanwhile.
            (self._image / FAILED).touch()
        for unused in (IN_PROGRESS, FINISHED):
            shutil.rmtree(self._image / unused, ignore_errors=True)
        os.write(sys.stderr.fileno(), f"modalflow: {reason}; this container starts without one\n".encode())
        self._begin(Start.PLAIN)

    def _error(self) -> str:
        """Return the beginning of the error in runsc's log, empty if there is none."""
        if not self._log.exists():
            return ""
        for line in self._log.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry.get("level") == "error":
                return str(entry.get("msg", "")).splitlines()[0][:_LONGEST_REASON]
        return ""
