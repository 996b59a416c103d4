"""A local control plane in a process of its own, and the settings of its clients.

Owns the process: its start, ready line, environment variables and end. sdk.py makes it the default of the SDK in this
process; daemon.py has control planes that outlive the program that started them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from modalflow.emulator import sdk
from modalflow.emulator.faults.fault_control import FaultControl
from modalflow.emulator.options import TOKEN_ID_VARIABLE, TOKEN_SECRET_VARIABLE, Options
from modalflow.emulator.services.environments import DEFAULT_ENVIRONMENT
from modalflow.emulator.state import scratch

START_SECONDS = 30.0
#: The same if an archive must be unpacked first.
UNPACK_SECONDS = 600.0
STOP_SECONDS = 20.0
STDERR_TAIL = 4_000

#: The exit code of a control plane whose last line on stderr is meant for the user. (EX_CONFIG of sysexits.h.)
UNUSABLE = 78
#: The same if containers cannot have a network of their own.
NO_NETWORK = 79

_OAUTH_VARIABLES = (
    "MODAL_OAUTH_REFRESH_TOKEN",
    "MODAL_OAUTH_CLIENT_ID",
    "MODAL_OAUTH_CLIENT_SECRET",
    "MODAL_OAUTH_JWT_KEY",
)


class StartError(RuntimeError):
    """A control plane did not become ready. The text holds its output on stderr."""


class NoNetworkError(StartError):
    """Containers cannot have a network of their own on this machine. The text says why."""


@dataclass(frozen=True)
class Address:
    """The address and the token of a control plane, as it prints them when it is ready."""

    url: str
    token_id: str
    token_secret: str = field(repr=False)
    pid: int
    state_dir: str
    control_url: str = ""
    """The address of the control endpoint; empty for a control plane of an older version."""

    @classmethod
    def parse(cls, line: str) -> Address:
        """Read the ready line and ignore unknown fields; ValueError for a missing field."""
        try:
            body = json.loads(line)
            needed = [f.name for f in dataclasses.fields(cls) if f.name in body or f.default is dataclasses.MISSING]
            return cls(**{name: body[name] for name in needed})
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"expected a JSON object with url, token_id, token_secret, pid, state_dir: {line!r}"
            ) from error

    @property
    def faults(self) -> FaultControl:
        """The faults of this control plane, which you can change while it runs."""
        return FaultControl(self.control_url, self.token_id, self.token_secret)

    def variables(self, environ: Mapping[str, str] | None = None) -> dict[str, str]:
        """Return the environment variables with which Modal's SDK and CLI talk to this control plane only.

        They also hide the settings of the user's ~/.modal.toml, profile and ``environ`` (default: os.environ).
        """
        environ = os.environ if environ is None else environ
        return {
            "MODAL_SERVER_URL": self.url,
            "MODAL_TOKEN_ID": self.token_id,
            "MODAL_TOKEN_SECRET": self.token_secret,
            "MODAL_ENVIRONMENT": DEFAULT_ENVIRONMENT,
            "MODAL_CONFIG_PATH": os.devnull,
            "MODAL_PROFILE": "",
            "MODAL_DISABLE_API_PROXY": "1",
            # The SDK refuses to choose between a token and OAuth credentials.
            **{name: "" for name in _OAUTH_VARIABLES if environ.get(name)},
        }


def launch(options: Options, stderr: IO[bytes]) -> tuple[subprocess.Popen[bytes], Address]:
    """Start a control plane and wait until it is ready; StartError, with nothing left running, if it fails.

    The process has a session of its own, so that a Ctrl-C in the terminal reaches the user's program and not the
    control plane.
    """
    # -P: a file in the user's working directory must not replace a module of the same name.
    command = [sys.executable, "-P", "-m", "modalflow.emulator", *options.to_argv()]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE if options.with_parent else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        env={**_without_tokens(os.environ), **options.to_environ()},
        start_new_session=True,
    )
    try:
        return process, Address.parse(
            _first_line(process, time.monotonic() + (UNPACK_SECONDS if options.base else START_SECONDS))
        )
    except BaseException as error:
        ended = process.poll()
        end(process, seconds=2.0)
        if not isinstance(error, ValueError | TimeoutError):
            raise
        if ended in (UNUSABLE, NO_NETWORK):
            kind = NoNetworkError if ended == NO_NETWORK else StartError
            raise kind(_tail(stderr).rpartition("\n")[2]) from error
        how = f"it ended with exit code {ended}" if ended is not None else str(error)
        raise StartError(f"The local control plane did not become ready: {how}. It wrote:\n{_tail(stderr)}") from error


def end(process: subprocess.Popen[bytes], seconds: float = STOP_SECONDS) -> None:
    """Ask the process to end and wait; kill it if it does not end in time."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


class LocalModal:
    """A control plane for as long as a ``with`` block, or from ``start`` to ``stop``; it ends with this process too.

    Meanwhile Modal's SDK talks to it, in this process and its children, and refuses calls to any other server with a
    WrongServerError: a real account cannot be reached. Before and after it, the SDK talks to the configured server.

        with LocalModal(max_containers=4):
            modal.Dict.from_name("d", create_if_missing=True)["key"] = "value"

    Pass the options of ``modalflow local start`` as keywords, or as ``Options``. You can nest LocalModals: the
    innermost one counts. ``as_default=False`` does not change this process, for a control plane that only others use:

        with LocalModal(as_default=False) as local:
            subprocess.run(["modal", "deploy", "app.py"], env={**os.environ, **local.env})
    """

    def __init__(self, options: Options | None = None, *, as_default: bool = True, **overrides: Any) -> None:
        given = dataclasses.replace(options or Options(), **overrides)
        self.options = dataclasses.replace(given, with_parent=True)
        self._as_default = as_default
        self._process: subprocess.Popen[bytes] | None = None
        self._address: Address | None = None
        self._stderr: IO[bytes] | None = None
        self._default: sdk.DefaultServer | None = None
        self._owner = 0

    def __repr__(self) -> str:
        return f"<LocalModal {self._address.url if self._address else 'stopped'}>"

    def start(self) -> LocalModal:
        """Start the control plane and wait until it is ready; StartError if it fails.

        RuntimeError if a LocalModal of another thread is the SDK's default.
        """
        if self._process is not None:
            raise RuntimeError(f"{self!r} is already running; call stop() before you start it again")
        if self._as_default:
            sdk.check()
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        try:
            self._process, self._address = launch(self.options, self._stderr)
            self._owner = os.getpid()
            sdk.started(self.url)
            if self._as_default:
                self._default = sdk.enter(self.url, self.env)
        except BaseException:
            self.stop()
            raise
        return self

    def stop(self) -> None:
        """End the control plane and its containers, and wait until they have ended. Repeating it is harmless.

        In a forked child it does not end the control plane, which belongs to the parent.
        """
        default, self._default = self._default, None
        try:
            if self._address is not None:
                # At a port that the user chose, the control plane may come back: clients wait for it, as for Modal.
                sdk.ended(self.url, for_good=not self.options.port)
            if default is not None:
                sdk.leave(default)
        finally:
            self._end()

    def _end(self) -> None:
        if self._process is not None and self._owner == os.getpid():
            end(self._process)
            if self.options.state_dir is None:
                # The control plane removes it itself, unless it was killed.
                scratch.remove(Path(self.address.state_dir))
        if self._stderr is not None:
            self._stderr.close()
        self._process = self._address = self._stderr = None

    def __enter__(self) -> LocalModal:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    @property
    def address(self) -> Address:
        if self._address is None:
            raise RuntimeError("the local control plane is not running; call start(), or use it in a with block")
        return self._address

    @property
    def url(self) -> str:
        """The address of the control plane, e.g. ``http://127.0.0.1:40123``."""
        return self.address.url

    @property
    def env(self) -> dict[str, str]:
        """The environment variables for clients; see Address.variables."""
        return self.address.variables()

    @property
    def pid(self) -> int:
        return self.address.pid

    @property
    def faults(self) -> FaultControl:
        """The faults of the control plane: ``add``, ``list``, ``clear``, and ``now`` for a single fault."""
        return self.address.faults

    def stderr(self) -> str:
        """Return the end of the control plane's output on stderr."""
        return _tail(self._stderr) if self._stderr is not None else ""


def _first_line(process: subprocess.Popen[bytes], deadline: float) -> str:
    """Read the ready line; TimeoutError if it does not come in time. Return what came if the process ends before."""
    assert process.stdout is not None
    descriptor, body = process.stdout.fileno(), b""
    while b"\n" not in body:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([descriptor], [], [], left)[0]:
            raise TimeoutError(f"it wrote nothing for {START_SECONDS:g} seconds")
        part = os.read(descriptor, 65536)
        if not part:
            process.wait(STOP_SECONDS)
            break
        body += part
    return body.decode(errors="replace").partition("\n")[0]


def _without_tokens(environ: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environ.items() if name not in (TOKEN_ID_VARIABLE, TOKEN_SECRET_VARIABLE)}


def _tail(file: IO[bytes]) -> str:
    size = os.fstat(file.fileno()).st_size
    return os.pread(file.fileno(), STDERR_TAIL, max(0, size - STDERR_TAIL)).decode(errors="replace").strip()
