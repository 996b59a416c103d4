"""Named local control planes, which outlive the command that started them.

Owns their records: one file for each name, readable by its user only because it holds the token. A record whose process
is gone is stale, and is removed when it is found.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import json
import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from modalflow.emulator.local import STOP_SECONDS, Address, launch
from modalflow.emulator.options import Options
from modalflow.support import linux

DEFAULT_NAME = "default"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class DaemonError(RuntimeError):
    """A named control plane cannot be started or found. The text says what to do."""


@dataclass(frozen=True)
class Daemon:
    """A control plane that was started under a name."""

    name: str
    address: Address
    started_at: float
    birth: str
    """The start time of its process, as the system counts: a later process with the same id has another one."""

    def is_alive(self) -> bool:
        return bool(self.birth) and _birth(self.address.pid) == self.birth

    def answers(self) -> bool:
        """Return whether a process listens at its address."""
        where = urlsplit(self.address.url)
        try:
            with socket.create_connection((where.hostname, where.port), timeout=2.0):
                return True
        except OSError:
            return False


def folder() -> Path:
    """Return where the records are: ``modalflow/local`` in the user's state folder."""
    state_home = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    path = Path(state_home) / "modalflow" / "local"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def start(name: str, options: Options) -> Daemon:
    """Start a control plane under that name; DaemonError if one runs already, StartError if it fails."""
    with _locked(name):
        running, _ = look_up(name)
        if running is not None:
            raise DaemonError(
                f"A local control plane named {name!r} is already running at {running.address.url} (pid "
                f"{running.address.pid}); stop it with `modalflow local stop{_option(name)}` or choose another --name"
            )
        with log_path(name).open("w+b") as log:
            log_path(name).chmod(0o600)
            process, address = launch(dataclasses.replace(options, with_parent=False), log)
        # The process runs on its own from now on: its output is not read, and its end is not awaited.
        if process.stdout is not None:
            process.stdout.close()
        process.returncode = 0
        daemon = Daemon(name, address, time.time(), _birth(address.pid))
        _write(daemon)
        return daemon


def look_up(name: str) -> tuple[Daemon | None, Daemon | None]:
    """Return (the running control plane of that name, the record of a dead one), each None if there is none.

    The record of a dead one is removed, so it is returned once.
    """
    daemon = _read(_path(name))
    if daemon is None or daemon.is_alive():
        return daemon, None
    _path(name).unlink(missing_ok=True)
    return None, daemon


def stop(daemon: Daemon) -> bool:
    """End a control plane and wait for its end; return False if it had to be killed."""
    ended = _end(daemon, signal.SIGTERM, STOP_SECONDS)
    if not ended:
        _end(daemon, signal.SIGKILL, STOP_SECONDS)
    _path(daemon.name).unlink(missing_ok=True)
    return ended


def names() -> list[str]:
    """Return the names with a record, also those of dead control planes."""
    return sorted(path.stem for path in folder().glob("*.json"))


def log_path(name: str) -> Path:
    """Return the log file of the control plane of that name."""
    return _path(name).with_suffix(".log")


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise DaemonError(f"--name is {name!r}; expected letters, digits, '.', '_' and '-', e.g. my-project")
    return folder() / f"{name}.json"


def _option(name: str) -> str:
    return "" if name == DEFAULT_NAME else f" --name {name}"


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    with _path(name).with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(daemon: Daemon) -> None:
    path = _path(daemon.name)
    incoming = path.with_suffix(".incoming")
    descriptor = os.open(incoming, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(daemon), file)
    incoming.replace(path)


def _read(path: Path) -> Daemon | None:
    try:
        body = json.loads(path.read_text())
        return Daemon(**{**body, "address": Address(**body["address"])})
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError) as error:
        raise DaemonError(f"{path} is not a record of a local control plane; remove it and start again") from error


def _end(daemon: Daemon, how: signal.Signals, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    with contextlib.suppress(ProcessLookupError):
        if daemon.is_alive():
            os.kill(daemon.address.pid, how)
    while daemon.is_alive():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _birth(pid: int) -> str:
    """Return the start time of a process, "" if there is none or only a zombie."""
    process = linux.read(pid)
    if process is None:
        return "" if linux.read("self") is not None else _birth_without_proc(pid)
    return "" if process.is_zombie else str(process.started)


def _birth_without_proc(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    return "unknown"
