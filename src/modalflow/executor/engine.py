"""The thread that talks to Modal for the executor: one asyncio loop, an inbox and an outbox.

Owns the thread and the loops that run on it. The scheduler's thread never waits for any of it, except in ``start``,
whose wait a setting limits. What the thread knows outlives it: if it ends, ``revive`` starts another one with the same
objects.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from modalflow.airflow_home.host_home import HostHome
from modalflow.config.settings import Settings
from modalflow.errors import ControlPlaneUnreachableError, HomeError
from modalflow.executor.lifecycle.airflow_state import StateDatabase
from modalflow.executor.mailbox import ENDS, Adoption, Inbox, SubmitRequest, Update, WorkloadKey
from modalflow.executor.modal_api.modal_api import ApiObserver, ModalApi
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import (
    BUDGET_USED,
    DELIVERY_LATENCY,
    HELD,
    IN_FLIGHT,
    PAUSED_PROFILES,
    UNDELIVERED,
    WAITING,
)
from modalflow.executor.reporting.publisher import Identity
from modalflow.executor.wiring import Wiring

log = logger(__name__)

#: Seconds that ``stop`` gives spawns that are under way.
SETTLE = 5.0
#: Seconds before the thread, or a loop of it, is started again after it has ended.
RESTART_PAUSE = 5.0
#: Seconds that cancelled tasks may take to end.
CANCELLATION = 2.0


class Engine:
    """Submits, listens, sweeps and reports."""

    def __init__(
        self,
        settings: Settings,
        open_api: Callable[[ApiObserver], ModalApi],
        identity: Identity,
        database: StateDatabase | None,
        default_queue: str,
        home: HostHome | None = None,
    ) -> None:
        self._settings = settings
        self._loop = asyncio.new_event_loop()
        self._inbox = Inbox(self._loop)
        self.wiring = Wiring(settings, open_api, identity, database, default_queue, self._loop, home)
        self._ready: Future[None] = Future()
        self._stopped = False
        self._revived_at = 0.0
        self._stopping, self._thread = self._new_thread()

    def _new_thread(self) -> tuple[asyncio.Event, threading.Thread]:
        return asyncio.Event(), threading.Thread(target=self._run, name="modalflow-engine", daemon=True)

    # The scheduler's thread

    def start(self) -> None:
        """Start, and wait until Modal has answered.

        Raises what is wrong with the configuration or the deployment. A Modal that does not answer does not stop a
        scheduler: that is logged, and the engine goes on trying.
        """
        self._thread.start()
        self._inbox.start()
        try:
            self._ready.result(self._settings.connect_timeout)
        except FutureTimeoutError:
            log.error("Modal did not answer within %s s; workloads wait until it does", self._settings.connect_timeout)
        except ControlPlaneUnreachableError as error:
            log.error("%s Workloads wait until it answers.", error)
        except HomeError as error:
            log.error("%s. Workloads wait until it is published.", str(error).rstrip("."))

    def revive(self) -> None:
        """Start the thread again if it has ended without ``stop``. Never waits; call it at each heartbeat."""
        if self._thread.is_alive() or self._stopped or not self._thread.ident:
            return
        if time.monotonic() - self._revived_at < RESTART_PAUSE:
            return
        self._revived_at = time.monotonic()
        log.error("The engine's thread has ended; it is started again with its %s calls in flight", self.in_flight)
        self.wiring.metrics.counts["engine_restarts"] += 1
        self.wiring.tasks.restart()
        self.wiring.connector.restart()
        self._stopping, self._thread = self._new_thread()
        self._thread.start()

    def submit(self, requests: Sequence[SubmitRequest]) -> None:
        """Submit workloads."""
        self._inbox.post(self.wiring.intake.accept, requests)

    def take_updates(self, limit: int) -> Iterable[Update]:
        """Yield what has happened since the last time, at most ``limit`` updates."""
        return self.wiring.outbox.take(limit)

    def delivered(self, updates: Iterable[Update]) -> None:
        """Note that updates were reported to Airflow."""
        now = time.monotonic()
        for update in updates:
            # A start is no end, and a repeated update was timed the first time.
            if update.kind in ENDS and not update.repeated:
                self.wiring.metrics.time(DELIVERY_LATENCY, now - update.known_at)

    def forget(self, work_ids: Sequence[str]) -> None:
        """Remove the ledger's entries of delivered outcomes."""
        if work_ids:
            self._inbox.post(self.wiring.claims.forget, work_ids)

    def revoke(self, key: WorkloadKey, reason: str) -> None:
        """End the function call of a workload that Airflow has given up, without an update."""
        self._inbox.post(self.wiring.outcomes.revoke, key, reason)

    def add_reason(self, log_path: str, reason: str) -> None:
        """Write a reason into a workload's log."""
        self._inbox.post(self.wiring.notes.add, log_path, reason, "error")

    def adopt(self, adoptions: Sequence[Adoption]) -> None:
        """Take over work of another scheduler."""
        if adoptions:
            self._inbox.post(self.wiring.adopter.adopt, adoptions)

    def stop(self) -> None:
        """Stop; what runs on Modal goes on, for another scheduler to adopt."""
        self._stopped = True
        if self._thread.is_alive():
            self._inbox.post(self._stopping.set)
            self._thread.join(SETTLE * 2)
        self._inbox.stop(CANCELLATION)

    @property
    def in_flight(self) -> int:
        """How many calls have no outcome yet."""
        return len(self.wiring.calls)

    @property
    def held(self) -> int:
        """How many calls a budget or a paused profile holds."""
        return len(self.wiring.admission)

    def describe(self) -> str:
        """Return what is in flight, for an operator."""
        wiring = self.wiring
        lines = [
            f"{self.in_flight} calls in flight, {len(wiring.outbox)} updates not fetched, partition {wiring.partition}"
        ]
        if wiring.connection.obstacle:
            lines.append(f"Modal accepts nothing at present: {wiring.connection.obstacle}")
        return "\n\t".join([*lines, *wiring.calls.describe(wiring.partition, time.monotonic(), time.time())])

    # The engine's thread

    def _run(self) -> None:
        wiring = self.wiring
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
            self._stopped = True
        except BaseException as error:
            log.exception("The engine's thread ends; new workloads wait until it is started again")
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            wiring.submitter.stop()
            if self._stopped:
                wiring.rpcs.drop()
                wiring.removals.drop()
            _drain(self._loop)
            if self._stopped:
                self._loop.close()

    async def _main(self) -> None:
        wiring = self.wiring
        connecting = self._loop.create_task(wiring.connector.connect_first(self._ready))
        self._keep_running(wiring.notes.run, wiring.wait_reasons.run)
        stopping = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done() or not connecting.result():
            return
        wiring.intake.place_all()
        wiring.tasks.spawn(self._start_submitting())
        self._keep_running(
            wiring.intake.run,
            wiring.events.run,
            wiring.events.run_for_others,
            wiring.sweeper.run,
            wiring.publisher.run,
            wiring.queries.run,
            wiring.keeper.run,
            wiring.budgets.run,
            wiring.profiles.run,
            wiring.held_tasks.run,
            wiring.relays.run,
            wiring.relay_key.run,
            wiring.history.run,
            self._send_metrics,
        )
        await asyncio.wait((stopping, wiring.tasks.broken), return_when=asyncio.FIRST_COMPLETED)
        if wiring.tasks.broken.done():
            wiring.tasks.broken.result()
        wiring.submitter.stop()
        await self._settle()
        await wiring.notes.written(SETTLE / 2)
        await wiring.keeper.publish_last()
        await wiring.publisher.withdraw()

    async def _start_submitting(self) -> None:
        await self.wiring.relay_key.known()
        await self.wiring.profiles.known()
        self.wiring.submitter.start()

    def _keep_running(self, *loops: Callable[[], Coroutine[Any, Any, None]]) -> None:
        for loop in loops:
            self.wiring.tasks.spawn(_forever(loop))

    async def _settle(self) -> None:
        """Let spawns under way get their function call id, for Airflow to store, and let side RPCs be carried out."""
        wiring = self.wiring
        deadline = time.monotonic() + SETTLE
        while wiring.submitter.under_way or len(wiring.rpcs) or len(wiring.removals):
            if time.monotonic() > deadline:
                return
            await asyncio.sleep(0.05)

    async def _send_metrics(self) -> None:
        await self.wiring.metrics.run(self._gauges)

    def _gauges(self) -> dict[str, float]:
        return {
            IN_FLIGHT: self.in_flight,
            WAITING: self.wiring.submitter.waiting,
            UNDELIVERED: len(self.wiring.outbox),
            HELD: self.held,
            PAUSED_PROFILES: len(self.wiring.profile_gate.holds),
            **{f"{BUDGET_USED}.{name}": share for name, share in self.wiring.gate.shares_used().items()},
        }


async def _forever(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop that must not end, and run it again if it does."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("A loop of the engine ended; it is started again")
        await asyncio.sleep(RESTART_PAUSE)


def _drain(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel the tasks that are left on a loop, and let them end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), CANCELLATION))
