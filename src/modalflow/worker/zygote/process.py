"""A zygote as a process of this container: started without an event loop, so that it can be before there is one.

Must not import Airflow.
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class ZygoteProcess:
    """A zygote that was started, and this end of the socket to it."""

    process: subprocess.Popen[bytes]
    control: socket.socket

    @classmethod
    def start(cls, env: Mapping[str, str], *, airflow: bool) -> ZygoteProcess:
        """Start one; with ``airflow`` it imports that before it takes its first order."""
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
                env=dict(env),
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        return cls(process, ours)

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def wait_until_ready(self, patience: float) -> bool:
        """Wait until it has imported what it is to import; False if it has ended, or not got there in so many seconds.

        To be called before anything else listens to it.
        """
        self.control.settimeout(patience)
        try:
            # Left there: the line that says so is for whoever listens.
            return bool(self.control.recv(1, socket.MSG_PEEK))
        except OSError:
            return False
        finally:
            self.control.settimeout(None)

    async def ended(self) -> int:
        """Its exit code, once it has ended."""
        return await asyncio.to_thread(self.process.wait)
