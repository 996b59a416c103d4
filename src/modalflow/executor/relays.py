"""The executor's part in the relay: its relay processes, and the relay key of its tasks.

``modalflow.relay`` is the relay itself. It also runs without an executor.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from modalflow.config.settings import OPTIONS, Settings
from modalflow.errors import ControlPlaneUnreachableError, NotDeployedError
from modalflow.executor.connection import Connection
from modalflow.executor.modal_api.modal_api import FAILURES, ModalApi
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.relay_output import RelayOutput
from modalflow.names import API_URL_VARIABLE
from modalflow.protocol.relay_report import name_of_relay
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe, words_of

log = logger(__name__)

#: Seconds before the replacement of an ended relay, doubling up to the second number while they end at once.
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0
#: Seconds after which an end is no longer at once.
LIVED = 60.0
#: Seconds for the end of a relay.
GRACE = 5.0
#: Seconds for the removal of its report. It may delay the next relay.
WITHDRAWAL = 5.0
#: Seconds between two questions for a new key.
KEY_INTERVAL = 30.0
#: Seconds of the first attempt at the key, and between further ones.
FIRST_WAIT, RETRY_PAUSE = 15.0, 5.0


@dataclass(frozen=True)
class End:
    """The end of a relay process."""

    code: int | str
    """Its exit status, or why it could not be started."""
    pid: int | None = None
    reason: str = ""
    """The last line of its output, if that can be the reason."""

    def __str__(self) -> str:
        return f"{self.code} ({self.reason.rstrip('.')})" if self.reason else str(self.code)


class RelayProcesses:
    """Keeps as many relays running as the settings ask for."""

    def __init__(self, settings: Settings, key: RelayKey, connection: Connection) -> None:
        """``settings`` as ``worker_env.resolved`` returns them."""
        self._key = key
        self._connection = connection
        self._count = settings.relays if settings.execution_api == "relay" else 0
        self._environment = {API_URL_VARIABLE: settings.execution_api_url, **_variables(settings)}

    async def run(self) -> None:
        """Run them until cancelled."""
        if not self._count:
            await asyncio.Event().wait()
        # A relay gets its keys from the same Function.
        await self._key.made()
        await asyncio.gather(*(self._keep_running(number) for number in range(1, self._count + 1)))

    async def _keep_running(self, number: int) -> None:
        backoff = Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            began = asyncio.get_running_loop().time()
            end = await self._run_one(number)
            if asyncio.get_running_loop().time() - began > LIVED:
                backoff.reset()
            pause = backoff.next()
            log.error("Relay %s ended with %s; it is started again in %g s", number, end, pause)
            await asyncio.gather(asyncio.sleep(pause), self._withdraw(end.pid))

    async def _run_one(self, number: int) -> End:
        async with RelayOutput(number) as output:
            end = await self._run_with(number, output)
            await output.rest()
            return dataclasses.replace(end, reason=output.reason)

    async def _run_with(self, number: int, output: RelayOutput) -> End:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "modalflow.cli", "relay", "--parent", str(os.getpid())),
                stdin=asyncio.subprocess.DEVNULL,
                stderr=output.write_end,
                # For posix_spawn. After a fork, subprocess waits until a pipe is closed, which workers that
                # LocalExecutor forks from this process at that moment keep open.
                close_fds=False,
                env={**os.environ, **self._environment},
            )
        except OSError as error:
            return End(str(error))
        output.started()
        log.info("Relay %s is process %s", number, process.pid)
        try:
            return End(await process.wait(), process.pid)
        finally:
            await _end(process)

    async def _withdraw(self, pid: int | None) -> None:
        """Remove the report of an ended relay: a killed one has left it, and would be shown as alive."""
        if pid is None:
            return
        try:
            async with asyncio.timeout(WITHDRAWAL):
                await self._connection.get().withdraw_relay(name_of_relay(pid))
        except FAILURES as error:
            log.info("The report of an ended relay could not be removed: %s", describe(error))


class RelayKey:
    """The relay key for submissions: fetched before the first one, and again after each rotation."""

    def __init__(self, connection: Connection, *, wanted: bool, optional: bool = False) -> None:
        """``wanted``: containers reach the Execution API by the relay.

        ``optional``: without a key they go directly to its URL.
        """
        self._connection = connection
        self._wanted = wanted
        self._optional = optional
        self._known = asyncio.Event()
        self._made = asyncio.Event()

    async def known(self) -> None:
        """Return once submissions can have the key, or need none."""
        if self._wanted:
            await self._known.wait()

    async def made(self) -> None:
        """Return once there is a key."""
        await self._made.wait()

    async def fetch_first(self, api: ModalApi) -> None:
        """Fetch the key; leave that to ``run`` if it takes long, because adopted work does not need it.

        Raises NotDeployedError if the worker has none and needs one.
        """
        if not self._wanted or self._known.is_set():
            return
        try:
            async with asyncio.timeout(FIRST_WAIT):
                self._set(await api.relay_key())
        except NotDeployedError as error:
            if not self._optional:
                raise
            self._do_without(error)
        except (TimeoutError, ControlPlaneUnreachableError) as error:
            log.warning("New workloads wait for the relay's key: %s", describe(error))

    async def run(self) -> None:
        """Fetch the key if it is missing, and ask for a newer one, until cancelled: one small RPC each time."""
        if not self._wanted:
            await asyncio.Event().wait()
        while True:
            try:
                await self._renew()
            except NotDeployedError as error:
                if self._optional:
                    self._do_without(error)
                else:
                    log.warning("%s", error)
                    self._connection.blocked(words_of(error).rstrip("."))
            except FAILURES as error:
                log.warning("The relay's key could not be read: %s", describe(error))
                if not self._known.is_set():
                    self._connection.blocked(f"the relay's key could not be read ({describe(error)})")
            await asyncio.sleep(KEY_INTERVAL if self._known.is_set() else RETRY_PAUSE)

    async def _renew(self) -> None:
        api, known = self._connection.get(), self._connection.relay
        if not known or await api.newest_relay_key_id() > known.partition(":")[0]:
            self._set(await api.relay_key())

    def _do_without(self, error: NotDeployedError) -> None:
        """Let submissions go directly until there is a key."""
        if not self._known.is_set():
            log.warning("%s Until then, tasks go directly to [core] execution_api_server_url.", error)
            self._known.set()
            self._connection.accepted()

    def _set(self, key: str) -> None:
        if key != self._connection.relay:
            log.info("Workloads use the relay key %s", key.partition(":")[0])
        self._connection.relay = key
        self._made.set()
        if not self._known.is_set():
            self._known.set()
            self._connection.accepted()


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(GRACE):
            await process.wait()
    finally:
        # After the time is over, and if the engine does not wait for it.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


def _variables(settings: Settings) -> Mapping[str, str]:
    """Return this executor's options for a relay: a team's differ from those of its process."""
    needed = ("app_name", "conn_id", "environment", "relay_transport")
    return {option.variable(): str(getattr(settings, option.name)) for option in OPTIONS if option.name in needed}
