"""The thread that talks to Modal for the executor: one asyncio loop, a mailbox in, a mailbox out.

Owns the thread, the connection and the three loops that run on it. The scheduler's thread never waits for any of it,
but for ``start`` (bounded by a setting). What the thread knows outlives it: should it end, ``revive`` starts another
one with the same table of calls and the same mailboxes.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from queue import SimpleQueue
from typing import Any

from modalflow import control_plane
from modalflow.airflow_compat import scheduler
from modalflow.config.settings import Settings
from modalflow.errors import ControlPlaneUnreachableError
from modalflow.executor.lifecycle.adopter import Adopter
from modalflow.executor.lifecycle.airflow_state import Database, Enquiries
from modalflow.executor.lifecycle.bounded_tasks import Chores
from modalflow.executor.lifecycle.decision import Policy
from modalflow.executor.lifecycle.events import listen, listen_to_others
from modalflow.executor.lifecycle.start_retry import Unbegun
from modalflow.executor.lifecycle.sweeper import Sweeper
from modalflow.executor.lifecycle.tracker import Link, Tracker
from modalflow.executor.mailbox import ENDS, Adoption, News, Order
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.deployed import Deployed, warn_of_another_version
from modalflow.executor.modal_api.modal_api import FAILURES, Remote
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import DELIVERY_LATENCY, IN_FLIGHT, UNDELIVERED, WAITING, Metrics
from modalflow.executor.reporting.publisher import Identity, Publisher
from modalflow.executor.reporting.task_log_notes import Notes
from modalflow.executor.reporting.wait_reasons import Waiting
from modalflow.executor.submission.option_sets import OptionSets
from modalflow.executor.submission.placer import Placer
from modalflow.executor.submission.routing import Routing
from modalflow.executor.submission.submitter import Submitter
from modalflow.names import DEFAULT_PROFILE
from modalflow.support.described import describe, words_of

log = logger(__name__)

#: Seconds that ``stop`` gives spawns that are under way.
SETTLE = 5.0
#: Seconds between two attempts to reach Modal, to use mended credentials, or to start a loop that ended.
RECONNECT = 5.0
#: Seconds that calls which are cancelled at the end may take for it.
LAST_WORDS = 2.0
#: RPCs on the side (cancelling, barring) under way at once, and entries being forgotten.
CHORES = 32
CLEANING = 16


class Engine:
    """Submits, listens, sweeps."""

    def __init__(
        self,
        settings: Settings,
        open_remote: Callable[[], Remote],
        identity: Identity | None = None,
        database: Database | None = None,
        default_queue: str = DEFAULT_PROFILE,
    ) -> None:
        self._settings = settings
        self._open_remote = open_remote
        policy = Policy(
            task_timeout=settings.task_timeout,
            submit_attempts=settings.submit_attempts,
            retry_commands=settings.lost_command_policy == "retry",
            has_database=database is not None,
        )
        self._link = Link()
        self._enquiries = Enquiries(database)
        self._loop = asyncio.new_event_loop()
        self._chores = Chores(CHORES, self._spawn)
        self._cleaning = Chores(CLEANING, self._spawn)
        self._metrics = Metrics(scheduler.stats, team=identity.team if identity else "")
        self._tracker = Tracker(
            f"executor-{uuid.uuid4().hex[:16]}",
            policy,
            self._link,
            self._chores.put,
            enquiries=self._enquiries,
            clean=self._cleaning.put,
            counts=self._metrics.counts,
            timed=self._metrics.time,
            placer=Placer(
                Routing(settings.queues, default_queue), OptionSets(settings.max_option_sets, time.monotonic)
            ),
        )
        self._deployed = Deployed(self._tracker)
        self._tracker.look_at_deployed = self._deployed.ask
        self._submitter = Submitter(
            self._tracker,
            self.credentials_refused,
            settings.submit_concurrency,
            self._loop.call_later,
            self._spawn,
        )
        self._tracker.submit, self._tracker.submit_later = self._submitter.put, self._submitter.put_later
        self._sweeper = Sweeper(self._tracker, settings.sweep_interval)
        self._publisher = Publisher(self._tracker, identity or Identity(), settings.status_interval)
        self._adopter = Adopter(self._tracker, self._enquiries, self._sweeper.look)
        self._tracker.ask_airflow = self._adopter.ask_airflow
        self._tracker.explain = self._sweeper.explain
        self._tracker.begin_anew = Unbegun(self._tracker, self._enquiries).take
        self._mail: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._postman = threading.Thread(target=self._carry, name="modalflow-mail", daemon=True)
        self._notes = Notes(self._link)
        self._tracker.say = self._notes.add
        self._waiting = Waiting(self._tracker, self._notes.add, self._sweeper.look, settings.sweep_interval)
        self._ready: Future[None] = Future()
        self._stopped = False
        self._revived_at = 0.0
        self._prepare()

    def _prepare(self) -> None:
        """Make what belongs to one life of the thread. The loop outlives it, with what was posted meanwhile."""
        self._stopping = asyncio.Event()
        # Gets what no loop of the engine survives, so that the thread ends with it and begins anew.
        self._broken: asyncio.Future[None] = self._loop.create_future()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reconnecting = False
        self._thread = threading.Thread(target=self._run, name="modalflow-engine", daemon=True)

    # The scheduler's thread

    def start(self) -> None:
        """Start, and wait until Modal has answered.

        Raises what is wrong with the configuration or the deployment. A Modal that does not answer is no reason to
        stop a scheduler: that is logged, and the engine goes on trying.
        """
        self._thread.start()
        self._postman.start()
        try:
            self._ready.result(self._settings.connect_timeout)
        except FutureTimeoutError:
            log.error("Modal did not answer within %s s; workloads wait until it does", self._settings.connect_timeout)
        except ControlPlaneUnreachableError as error:
            log.error("%s Workloads wait until it answers.", error)

    def revive(self) -> None:
        """Start the thread anew if it has ended without being told to. Never waits; to be called at each heartbeat."""
        if self._thread.is_alive() or self._stopped or not self._thread.ident:
            return
        if time.monotonic() - self._revived_at < RECONNECT:
            return
        self._revived_at = time.monotonic()
        log.error("The engine's thread has ended; it is started again with its %s calls in flight", self.in_flight)
        self._metrics.counts["engine_restarts"] += 1
        self._prepare()
        self._thread.start()

    def submit(self, orders: Sequence[Order]) -> None:
        """Take orders."""
        self._post(self._tracker.take, orders)

    def take_news(self, most: int) -> Iterable[News]:
        """Whatever has happened since the last time, but no more than that many news at once."""
        news = self._tracker.news
        for _ in range(min(most, len(news))):
            yield news.popleft()

    def delivered(self, news: Iterable[News]) -> None:
        """These were told to Airflow."""
        now = time.monotonic()
        for each in news:
            # That a workload has begun is told, too; what is told again was timed the first time.
            if each.kind in ENDS and not each.again:
                self._metrics.time(DELIVERY_LATENCY, now - each.arrived_at)

    def forget(self, work_ids: Sequence[str]) -> None:
        """These outcomes were delivered; their entries may leave the ledger."""
        if work_ids:
            self._post(self._tracker.forget, work_ids)

    def end_call(self, key: Any, reason: str) -> None:
        """Nobody wants this workload any more; end its function call, and tell no news of it."""
        self._post(self._tracker.end_call, key, reason)

    def add_reason(self, log_path: str, reason: str) -> None:
        """Write a reason into a workload's log."""
        self._post(self._tracker.add_reason, log_path, reason)

    def adopt(self, adoptions: Sequence[Adoption]) -> None:
        """Take over work of another scheduler; what becomes of it is news like any other."""
        if adoptions:
            self._post(self._adopter.adopt, adoptions)

    def stop(self) -> None:
        """Stop; what runs on Modal goes on, for another scheduler to adopt."""
        self._stopped = True
        if self._thread.is_alive():
            self._post(self._stopping.set)
            self._thread.join(SETTLE * 2)
        if self._postman.is_alive():
            self._mail.put(None)
            self._postman.join(LAST_WORDS)

    @property
    def in_flight(self) -> int:
        """How many calls have no outcome yet."""
        return len(self._tracker.calls)

    def describe(self) -> str:
        """What is in flight, for an operator."""
        first = f"{self.in_flight} calls in flight, {len(self._tracker.news)} news not fetched"
        return "\n\t".join([f"{first}, partition {self._tracker.partition}", *self._tracker.describe()])

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have the engine do something. What is posted while the thread is not there waits for the next one.

        Not by ``call_soon_threadsafe``: that writes to a socket, which gives the interpreter away, and a busy engine
        gives it back after its turn of 5 ms only.
        """
        self._mail.put(partial(function, *args))

    def _carry(self) -> None:
        """From the scheduler's thread to the engine's loop, on a thread that may wait."""
        while (letter := self._mail.get()) is not None:
            # Closed at the end only; it may be so at this very moment.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(letter)

    # The engine's loop

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
            self._stopped = True
        except BaseException as error:
            log.exception("The engine's thread ends; new workloads wait until it is started again")
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._submitter.stop()
            if self._stopped:
                self._chores.drop()
                self._cleaning.drop()
            _drain(self._loop)
            if self._stopped:
                self._loop.close()

    async def _main(self) -> None:
        connecting = self._loop.create_task(self._first_connection())
        self._spawn(_for_ever(self._notes.run))
        self._spawn(_for_ever(self._waiting.run))
        stopping = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done() or not connecting.result():
            return
        self._tracker.place_unplaced()
        self._submitter.start()
        self._spawn(_for_ever(self._deployed.run))
        self._spawn(_for_ever(lambda: listen(self._tracker)))
        self._spawn(_for_ever(lambda: listen_to_others(self._tracker)))
        self._spawn(_for_ever(self._sweeper.run))
        self._spawn(_for_ever(self._publisher.run))
        self._spawn(_for_ever(self._enquiries.run))
        self._spawn(_for_ever(lambda: self._metrics.run(self._gauges)))
        await asyncio.wait((stopping, self._broken), return_when=asyncio.FIRST_COMPLETED)
        if self._broken.done():
            self._broken.result()
        self._submitter.stop()
        await self._settle()
        await self._notes.written(SETTLE / 2)
        await self._publisher.withdraw()

    async def _first_connection(self) -> bool:
        """Connect, telling ``start`` how it went; False where the configuration makes it pointless to go on."""
        while True:
            try:
                await self._connect()
            except FAILURES as error:
                passing = isinstance(error, ControlPlaneUnreachableError)
                self._tracker.trouble = words_of(error).rstrip(".")
                if not self._ready.done():
                    self._ready.set_exception(error)
                    if not passing:
                        return False
                elif not passing:
                    log.error("Not yet connected to Modal: %s", error)
                await asyncio.sleep(RECONNECT)
            else:
                if not self._ready.done():
                    self._ready.set_result(None)
                return True

    async def _connect(self) -> None:
        remote = await in_daemon_thread(self._open_remote)
        remote.counted = self._metrics.rpc
        self._link.deployment = await remote.deployment()
        warn_of_another_version(self._link.deployment)
        self._link.remote = remote
        self._tracker.trouble = ""
        remote.refused = self.credentials_refused

    async def _settle(self) -> None:
        """Let spawns that are under way get their function call id, so that Airflow may store it, and let what was
        asked for on the side be done."""
        deadline = time.monotonic() + SETTLE
        busy = (self._chores, self._cleaning)
        while (self._submitter.under_way or any(map(len, busy))) and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    def _gauges(self) -> dict[str, float]:
        return {
            IN_FLIGHT: self.in_flight,
            WAITING: self._submitter.waiting,
            UNDELIVERED: len(self._tracker.news),
        }

    def _spawn(self, coroutine: Coroutine[Any, Any, Any]) -> None:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        if isinstance(error, Exception):
            log.warning("A call to Modal failed: %s", describe(error))
        elif not self._broken.done():
            self._broken.set_exception(error)
            # Where the loop itself raises it, nobody else asks.
            self._broken.exception()

    def credentials_refused(self) -> None:
        """Read the credentials anew, once at a time: they may have been rotated."""
        if not self._reconnecting:
            self._reconnecting = True
            self._spawn(self._reconnect())

    async def _reconnect(self) -> None:
        try:
            control_plane.forget(self._link.made().control_plane)
            await self._connect()
            self._submitter.resume()
            log.info("Connected to Modal with the credentials as they are now")
        except FAILURES as error:
            self._tracker.trouble = words_of(error).rstrip(".")
            log.error("%s", error)
        finally:
            await asyncio.sleep(RECONNECT)
            self._reconnecting = False


async def _for_ever(loop: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run a loop that must not end, again if it does."""
    while True:
        try:
            await loop()
        except Exception:
            log.exception("A loop of the engine ended; it is started again")
        await asyncio.sleep(RECONNECT)


def _drain(loop: asyncio.AbstractEventLoop) -> None:
    """Cancel whatever is left on a loop, and let it end."""
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    with contextlib.suppress(BaseException):
        loop.run_until_complete(asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), LAST_WORDS))
