"""A control plane that keeps its state, made to be killed.

Owns the process, its folder and its port. Who loads it and what must hold, workload.py and kills.py say.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from modalflow.emulator.local import Address, StartError, end, launch
from modalflow.emulator.options import Options
from tests.support import wait_until

#: Somebody else may have taken the port of a control plane that is down, for a short connection.
PORT_SECONDS = 30.0


class Plane:
    """A control plane on a folder and, from its first start on, on one port. Use it in a ``with`` block."""

    def __init__(self, folder: Path, **options: object) -> None:
        self.options = Options(state_dir=folder, with_parent=True, **options)  # type: ignore[arg-type]
        self.stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as this)
        self._process: subprocess.Popen[bytes] | None = None
        self.address: Address | None = None

    def __enter__(self) -> Plane:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self.stop()
        self.stderr.close()

    def start(self) -> Address:
        """Start it, again if it was killed, and wait until it is ready."""

        def started() -> tuple[subprocess.Popen[bytes], Address] | None:
            try:
                return launch(self.options, self.stderr)
            except StartError as error:
                if "cannot listen" not in str(error):
                    raise
                return None

        launched = wait_until(started, PORT_SECONDS, "the port to be free again")
        assert launched is not None
        self._process, self.address = launched
        self.options = dataclasses.replace(self.options, port=int(self.address.url.rpartition(":")[2]))
        return self.address

    def stop(self) -> None:
        """End it as a user would."""
        assert self._process is not None
        end(self._process)
        self._process = None

    def kill(self) -> None:
        """End it as a crash would."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None

    def kill_while_starting(self, rng: random.Random) -> None:
        """Begin a start that a kill ends before anybody heard of it."""
        command = [sys.executable, "-P", "-m", "modalflow.emulator", *self.options.to_argv()]
        starting = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self.stderr, start_new_session=True
        )
        threading.Event().wait(rng.uniform(0.1, 1.0))
        starting.kill()
        starting.communicate()

    def said(self) -> str:
        """Return what it wrote on stderr, over all its lives."""
        self.stderr.seek(0)
        return self.stderr.read().decode(errors="replace")
