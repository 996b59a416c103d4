"""The connection to Modal: its state for everything that needs Modal, and the connector that makes and renews it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from modalflow import __version__, control_plane
from modalflow.errors import ControlPlaneUnreachableError, HomeError, IncompatibleWorkerError, MalformedMessageError
from modalflow.executor.home_publisher import HomePublisher
from modalflow.executor.loop_tasks import LoopTasks
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.modal_api import FAILURES, ApiObserver, ModalApi
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import Metrics
from modalflow.protocol.messages import Deployment
from modalflow.support.described import describe, words_of

if TYPE_CHECKING:
    from modalflow.executor.relays import RelayKey
    from modalflow.executor.submission.submitter import Submitter

log = logger(__name__)

#: Seconds between two attempts to reach Modal, or to use renewed credentials.
RECONNECT = 5.0


@dataclass
class Connection:
    """The connection to Modal as it is now."""

    api: ModalApi | None = None
    """None until the first connection is made."""
    deployment: Deployment | None = None
    """What is deployed, as last read."""
    relay: str = ""
    """The relay key for submissions; empty if containers reach the Execution API directly."""
    relay_transport: str = "queues"
    """How requests of containers travel to relays."""
    obstacle: str = ""
    """Why Modal accepts no work at present; empty if it does."""

    def get(self) -> ModalApi:
        """Return the API; for use by whatever runs after the first connection only."""
        assert self.api is not None, "nothing that needs Modal runs before the first connection"
        return self.api

    def made(self, api: ModalApi, deployment: Deployment | None) -> None:
        """Record a new connection, over which Modal accepts work."""
        self.api, self.deployment, self.obstacle = api, deployment, ""

    def blocked(self, obstacle: str) -> None:
        """Record why Modal accepts no work."""
        self.obstacle = obstacle

    def accepted(self) -> None:
        """Record that Modal accepts work."""
        self.obstacle = ""

    async def refresh_deployment(self) -> bool:
        """Read again what is deployed: `modalflow deploy` notifies no scheduler. Return False if that fails for now."""
        try:
            found = await self.get().record()
        except (IncompatibleWorkerError, MalformedMessageError) as error:
            # Neither passes until someone deploys, so what needs an unknown profile is rejected.
            log.error("Work goes on with what was deployed before, as far as possible: %s", error)
            return True
        except FAILURES as error:
            log.warning("The record of what is deployed could not be read (%s)", describe(error))
            return False
        if found is not None and found != self.deployment:
            log.info("modalflow %s is deployed now, with profiles %s", found.version, ", ".join(found.profiles))
            self.deployment = found
            self.get().forget_handles()
        return True


class Connector(ApiObserver):
    """Makes the connection, and makes it again when Modal refuses the credentials."""

    def __init__(
        self,
        connection: Connection,
        open_api: Callable[[ApiObserver], ModalApi],
        homes: HomePublisher,
        metrics: Metrics,
        submitter: Submitter,
        tasks: LoopTasks,
        relay_key: RelayKey,
    ) -> None:
        self._relay_key = relay_key
        self._connection = connection
        self._open_api = open_api
        self._homes = homes
        self._metrics = metrics
        self._submitter = submitter
        self._tasks = tasks
        self._renewing = False

    async def connect_first(self, ready: Future[None]) -> bool:
        """Connect, however long that takes; set ``ready`` to the result of the first attempt.

        Return False if the configuration makes further attempts pointless.
        """
        while True:
            try:
                await self._connect()
            except FAILURES as error:
                transient = isinstance(error, ControlPlaneUnreachableError | HomeError)
                if not ready.done():
                    ready.set_exception(error)
                    if not transient:
                        return False
                elif not transient:
                    log.error("Not yet connected to Modal: %s", error)
                await asyncio.sleep(RECONNECT)
            else:
                if not ready.done():
                    ready.set_result(None)
                return True

    def restart(self) -> None:
        """Be ready for another thread: the one in which the connection may have been under renewal has ended."""
        self._renewing = False

    def on_rpc(self, rpc: str, error: BaseException | None) -> None:
        """Count a call of Modal's API."""
        self._metrics.rpc(rpc, error)

    def on_refused_credentials(self) -> None:
        """Read the credentials again, once at a time: they may have been rotated."""
        # A refusal before the first connection is the failure of that attempt.
        if self._connection.api is not None and not self._renewing:
            self._renewing = True
            self._tasks.spawn(self._renew())

    async def _connect(self) -> None:
        try:
            api = await in_daemon_thread(lambda: self._open_api(self))
            deployment = await api.deployment()
            await self._relay_key.fetch_first(api)
            await self._homes.publish(api, deployment)
        except FAILURES as error:
            self._connection.blocked(words_of(error).rstrip("."))
            raise
        _warn_of_another_version(deployment)
        self._connection.made(api, deployment)

    async def _renew(self) -> None:
        try:
            control_plane.forget(self._connection.get().control_plane)
            await self._connect()
            self._submitter.resume()
            log.info("Connected to Modal with the credentials as they are now")
        except FAILURES as error:
            log.error("%s", error)
        finally:
            await asyncio.sleep(RECONNECT)
            self._renewing = False


def _warn_of_another_version(deployment: Deployment | None) -> None:
    """Log that containers import another version of modalflow than this executor, if they do."""
    if deployment is not None and deployment.version != __version__:
        log.warning(
            "The deployed worker is modalflow %s, this executor is modalflow %s. They understand each other; to have "
            "one version, deploy the worker of this one: `modalflow deploy`.",
            deployment.version,
            __version__,
        )
