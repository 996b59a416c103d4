"""Checks of the relay: its key, the relays that report, and the round trip from a container."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

from modalflow.errors import NotDeployedError
from modalflow.operations.doctor.findings import Finding, fail, ok, warn
from modalflow.operations.doctor.modal_side import FAILURES
from modalflow.operations.inventory import relays_of, take_inventory
from modalflow.operations.site import Site, within
from modalflow.protocol.relay_report import RelayReport
from modalflow.relay import keys
from modalflow.support.described import describe

#: Seconds to wait for a first report, since an executor's relays report later than the executor does.
STARTING = 10.0

#: Seconds of a round trip over a relay from which it slows tasks down.
SLOW = 1.0

#: Advice if no relay answers.
START = (
    "Start the scheduler, which starts relays ([modal_executor] relays), or run `modalflow relay` where the API server "
    "can be reached."
)


def key(site: Site, conf: Any | None) -> tuple[Finding, str]:
    """Ask the worker for the relay's key, as an executor does at its start."""
    began = time.monotonic()
    try:
        found = within(keys.PATIENCE, lambda: asyncio.run(keys.fetch_public_key(site.names, **site.scope)))
    except NotDeployedError as error:
        advice = f"Deploy again: `{site.deploy_command}`."
        if conf is None or not _works_without(site, conf):
            return fail("relay key", str(error), advice), ""
        return warn("relay key", f"{error} Until then, tasks go directly to the URL above.", advice), ""
    except FAILURES as error:
        return fail("relay key", describe(error), f"Deploy again: `{site.deploy_command}`."), ""
    return ok("relay key", found.id, time.monotonic() - began), str(found)


def _works_without(site: Site, conf: Any) -> bool:
    from modalflow.executor.worker_env import works_without_relay

    return works_without_relay(site.settings, conf)


def relays(site: Site) -> Iterator[Finding]:
    """Report the relays that are alive."""
    try:
        living = _living(site) or _wait_for_relays(site)
    except FAILURES as error:
        yield warn("relays", describe(error), "Try again.")
        return
    if not living:
        yield fail("relays", "no relay reports: tasks wait for one", START)
    for relay in living:
        yield ok("relays", f"{relay.name} sends requests to {relay.url}")


def _living(site: Site) -> list[RelayReport]:
    found, now = list(relays_of(site)), time.time()
    return [relay for relay in found if not relay.is_silent(now)]


def _wait_for_relays(site: Site) -> list[RelayReport]:
    """Wait for the relays of an executor that reports; none without one."""
    if not take_inventory(site, profiles=False).living:
        return []
    until = time.monotonic() + STARTING
    while not (living := _living(site)) and time.monotonic() < until:
        time.sleep(0.5)
    return living


def round_trips(seen: Any) -> Iterator[Finding]:
    """Report the round trips of a container's ``execution_api``, if they went over a relay."""
    trips, relay = (seen.get("round_trips"), seen.get("relay")) if isinstance(seen, dict) else (None, None)
    found = sorted(each for each in trips if isinstance(each, float)) if isinstance(trips, list) else []
    if not found:
        return
    median, p95 = found[len(found) // 2], found[min(len(found) - 1, round(0.95 * len(found)))]
    shown = f"p50 {median * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms of {len(found)} round trips, by {relay}"
    if p95 < SLOW:
        yield ok("relay", shown)
    else:
        yield warn("relay", shown, "Check the load of the API server and of the relays: `modalflow status`.")
