"""Running a relay on this machine, and rotating the relay's key."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import uuid
from collections.abc import Callable
from typing import Any

from modalflow import control_plane
from modalflow.config.urls import execution_api_url, without_user
from modalflow.errors import ConfigError
from modalflow.names import API_URL_VARIABLE
from modalflow.operations.site import Site, airflow_conf, open_site, read_settings
from modalflow.protocol.relay_report import name_of_relay
from modalflow.relay import keys
from modalflow.relay.host.api_server import ApiServer
from modalflow.relay.host.counts import Counts
from modalflow.relay.host.relay import Relay
from modalflow.relay.host.reporter import Reporter
from modalflow.relay.host.tunnels_to_containers import TunnelsToContainers
from modalflow.relay.queue_transport import QueueToContainers
from modalflow.support import linux

log = logging.getLogger(__name__)

#: Seconds between two checks of the relay's parent process.
PARENT_INTERVAL = 1.0
#: Seconds between two returns of freed memory: a relay has much more for a moment if containers read large XComs.
MEMORY_INTERVAL = 30.0


def relay_name() -> str:
    """Return a name for a relay of this process."""
    return name_of_relay(os.getpid(), uuid.uuid4().hex[:4])


def api_url() -> str:
    """Return the Execution API's URL on this host. Raises ConfigError."""
    conf: Any = airflow_conf()
    place = "[core] execution_api_server_url"
    if conf is None:
        found = os.environ.get(API_URL_VARIABLE, "")
        if not found:
            raise ConfigError(place, found, f"a URL; without Airflow on this machine, set {API_URL_VARIABLE}")
        return execution_api_url(place, found)
    from modalflow.airflow_compat.configuration import execution_api_server_url

    return execution_api_url(place, execution_api_server_url(conf))


def certificates() -> str:
    """Return the file of certificates of Airflow's own clients for the API server."""
    conf: Any = airflow_conf()
    return "" if conf is None else str(conf.get("api", "ssl_cert", fallback="") or "")


def run_relay(app: str, environment: str, parent: int | None, notify: Callable[[str], None]) -> None:
    """Relay until this process gets SIGTERM or SIGINT, or the process ``parent`` ends.

    Raises ConfigError, CredentialsError or ControlPlaneUnreachableError.
    """
    settings = read_settings(app, environment)
    site, url = open_site(settings), api_url()
    notify(f"Relaying requests of the worker app {site.names.app} to {without_user(url)}.")
    tunnels = settings.relay_transport == "tunnel"
    asyncio.run(_relay(site, ApiServer(url, ca=certificates()), parent, tunnels=tunnels))


def _stats() -> Any:
    """Return Airflow's stats; None without Airflow."""
    try:
        from modalflow.airflow_compat.scheduler import stats
    except ImportError:
        return None
    return stats()


async def _relay(site: Site, api: ApiServer, parent: int | None, *, tunnels: bool) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with api:
        name, queue = relay_name(), QueueToContainers(site.names, **site.scope)
        tunnelled = TunnelsToContainers(name, queue, local=control_plane.is_local()) if tunnels else None
        relay = Relay(
            name,
            tunnelled or queue,
            api,
            lambda: keys.fetch_keys(site.names, **site.scope),
            Counts(),
            tunnelled,
        )
        reporter = Reporter(relay, api.shown, site.names, _stats, **site.scope)
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(each) for each in (relay.run(), stop.wait(), reporter.run(), _return_memory())
        ]
        if parent is not None:
            tasks.append(asyncio.create_task(_outlived(parent)))
        # A relay without requests would not notice an API server out of reach. It ends before the others.
        first_check = asyncio.create_task(relay.check_api())
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in (*tasks, first_check):
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks, first_check, return_exceptions=True)
        await reporter.withdraw()
        for task in done:
            task.result()


async def _return_memory() -> None:
    while True:
        await asyncio.sleep(MEMORY_INTERVAL)
        linux.return_freed_memory()


async def _outlived(parent: int) -> bool:
    """Return once this process has lost its parent."""
    while os.getppid() == parent:
        await asyncio.sleep(PARENT_INTERVAL)
    return True


def rotate_key(app: str, environment: str) -> str:
    """Add a new key; return its id. Raises NotDeployedError, and as ``run_relay`` does."""
    site = open_site(read_settings(app, environment))
    return keys.rotate(site.names, **site.scope)
