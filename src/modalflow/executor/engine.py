"""The thread that talks to Modal for the executor: one asyncio loop, a mailbox in, a mailbox out.

Everything in here runs on the engine's loop unless its docstring says "scheduler's thread". The scheduler's thread
never waits for it, but for ``start`` (bounded by a setting) and ``adopt`` (bounded here, and rare).
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any

from modalflow.config import Settings
from modalflow.errors import ControlPlaneUnreachableError, CredentialsError
from modalflow.executor.blocking import in_daemon_thread
from modalflow.executor.calls import Action, Call, Calls, Decision, Policy, lost_after_claim
from modalflow.executor.events import listen
from modalflow.executor.orders import Adoption, News, NewsKind, Order
from modalflow.executor.reconcile import Sweeper
from modalflow.executor.remote import FAILURES, Remote
from modalflow.executor.submit import Submitter
from modalflow.messages import Deployment, Entry, Kind, State
from modalflow.names import DEFAULT_PROFILE

log = logging.getLogger(__name__)

#: Seconds that a scheduler waits for the answer to an adoption; who is not answered by then is adopted and swept.
ADOPTION_WAIT = 5.0
#: Seconds that ``stop`` gives spawns that are under way.
SETTLE = 5.0
#: Seconds between two attempts to reach Modal, or to use mended credentials.
RECONNECT = 5.0


class Engine:
    """Submits, listens, sweeps; holds the table of calls."""

    def __init__(self, settings: Settings, open_remote: Callable[[], Remote]) -> None:
        self._settings = settings
        self._open_remote = open_remote
        self.partition = f"executor-{uuid.uuid4().hex[:16]}"
        self.policy = Policy(
            task_timeout=settings.task_timeout,
            submit_attempts=settings.submit_attempts,
            retry_commands=settings.lost_command_policy == "retry",
        )
        self.remote: Remote = None  # type: ignore[assignment]  # set before anything can ask for it
        self._deployment: Deployment | None = None
        self._calls = Calls()
        self._news: deque[News] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="modalflow-engine", daemon=True)
        self._ready: Future[None] = Future()
        self._stopping = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reconnecting = False
        self._kept_claims: deque[str] = deque(maxlen=10_000)

    # --- the scheduler's thread ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Scheduler's thread: start, and wait until Modal has answered.

        Raises what is wrong with the configuration or the deployment. A Modal that does not answer is no reason to
        stop a scheduler: that is logged, and the engine goes on trying.
        """
        self._thread.start()
        try:
            self._ready.result(self._settings.connect_timeout)
        except FutureTimeoutError:
            log.error(
                "Modal has not answered within %s s; workloads wait until it does", self._settings.connect_timeout
            )
        except ControlPlaneUnreachableError as error:
            log.error("%s Workloads wait until it answers.", error)

    def submit(self, orders: Sequence[Order]) -> None:
        """Scheduler's thread: take orders."""
        self._post(self._take, orders)

    def take_news(self) -> Iterable[News]:
        """Scheduler's thread: whatever has happened since the last time."""
        while self._news:
            yield self._news.popleft()

    def forget(self, work_ids: Sequence[str]) -> None:
        """Scheduler's thread: these outcomes were delivered; their entries may leave the ledger."""
        if work_ids:
            self._post(self._forget, work_ids)

    def end_call(self, key: Any, reason: str) -> None:
        """Scheduler's thread: nobody wants this workload any more; end its function call, and tell no news of it."""
        self._post(self._end_call, key, reason)

    def add_reason(self, log_path: str, reason: str) -> None:
        """Scheduler's thread: write a reason into a workload's log."""
        self._post(self._add_reason, log_path, reason)

    def adopt(self, adoptions: Sequence[Adoption]) -> set[Any]:
        """Scheduler's thread: take over work of another scheduler; return the keys of what was not begun and is now
        barred from beginning, so that Airflow may queue it anew without using a retry."""
        answer: Future[set[Any]] = Future()
        self._post(lambda: self._spawn_task(self._adopt(adoptions, answer)))
        try:
            return answer.result(ADOPTION_WAIT)
        except FutureTimeoutError:
            return set()

    def stop(self) -> None:
        """Scheduler's thread: stop; what runs on Modal goes on, for another scheduler to adopt."""
        if not self._thread.is_alive():
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join(SETTLE * 2)

    def describe(self) -> str:
        """Any thread: what is in flight, for an operator."""
        calls = list(self._calls)
        lines = [f"{len(calls)} calls in flight, {len(self._news)} news not fetched, partition {self.partition}"]
        now = time.monotonic()
        lines += [
            f"{call.label}: work id {call.work_id}, function call {call.function_call_id or 'not yet'}, "
            f"{call.attempts} submissions, silent for {now - call.heard_at:.0f} s"
            for call in calls
        ]
        return "\n\t".join(lines)

    def _post(self, function: Callable[..., Any], *args: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(function, *args)

    # --- the engine's loop --------------------------------------------------------------------------------------------

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        except BaseException as error:
            log.exception("The engine ended; nothing is submitted or delivered until the scheduler is restarted")
            if not self._ready.done():
                self._ready.set_exception(error)
        finally:
            self._loop.close()

    async def _main(self) -> None:
        self._submitter = Submitter(self, self._settings.submit_concurrency, self._loop.call_later)
        self._sweeper = Sweeper(
            lambda: self.remote, self.policy, self._settings.sweep_interval, self._calls.silent_since, self._apply_found
        )
        connecting = self._loop.create_task(self._first_connection())
        stopping = self._loop.create_task(self._stopping.wait())
        await asyncio.wait((connecting, stopping), return_when=asyncio.FIRST_COMPLETED)
        if not connecting.done() or not connecting.result():
            connecting.cancel()
            stopping.cancel()
            return
        loops = [
            self._spawn_task(self._submitter.run()),
            self._spawn_task(listen(lambda: self.remote, self.partition, self._told)),
            self._spawn_task(self._sweeper.run()),
        ]
        await stopping
        await self._settle()
        for task in [*loops, *self._tasks]:
            task.cancel()
        await asyncio.gather(*loops, *self._tasks, return_exceptions=True)

    async def _first_connection(self) -> bool:
        """Connect, telling ``start`` how it went; False where the configuration makes it pointless to go on."""
        while True:
            try:
                await self._connect()
            except ControlPlaneUnreachableError as error:
                if not self._ready.done():
                    self._ready.set_exception(error)
                await asyncio.sleep(RECONNECT)
            except FAILURES as error:
                if not self._ready.done():
                    self._ready.set_exception(error)
                    return False
                log.error("Not yet connected to Modal: %s", error)
                await asyncio.sleep(RECONNECT)
            else:
                if not self._ready.done():
                    self._ready.set_result(None)
                return True

    async def _connect(self) -> None:
        remote = await in_daemon_thread(self._open_remote)
        self._deployment = await remote.deployment()
        self.remote = remote

    async def _settle(self) -> None:
        """Let spawns that are under way get their function call id, so that Airflow may store it."""
        deadline = time.monotonic() + SETTLE
        while time.monotonic() < deadline and any(
            call.function_call_id is None and call.attempts for call in self._calls
        ):
            await asyncio.sleep(0.05)

    def _spawn_task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = self._loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_failure)
        return task

    def credentials_refused(self) -> None:
        """Read the credentials anew, once at a time: they may have been rotated."""
        if not self._reconnecting:
            self._reconnecting = True
            self._spawn_task(self._reconnect())

    async def _reconnect(self) -> None:
        from modalflow import control_plane

        try:
            control_plane.forget(self.remote.control_plane)
            await self._connect()
            log.info("Connected to Modal with the credentials as they are now")
        except (CredentialsError, ControlPlaneUnreachableError) as error:
            log.error("%s", error)
        finally:
            await asyncio.sleep(RECONNECT)
            self._reconnecting = False

    # --- orders ---

    def _take(self, orders: Sequence[Order]) -> None:
        for order in orders:
            submission = order.submission
            call = Call(
                key=order.key,
                work_id=submission.work_id,
                log_path=submission.log_path,
                label=submission.label,
                kind=submission.kind,
                heard_at=time.monotonic(),
                submission=submission,
                options=order.resources,
            )
            self._calls.add(call)
            profile = self._profile_of(order)
            if profile is None:
                known = ", ".join(self._deployment.profiles) if self._deployment else DEFAULT_PROFILE
                self._fail(call, f"Profile {order.profile!r} is not deployed; deployed profiles: {known}")
                continue
            call.submission = dataclasses.replace(submission, profile=profile, partition=self.partition)
            self._submitter.put(call)

    def _profile_of(self, order: Order) -> str | None:
        deployed = self._deployment.profiles if self._deployment else (DEFAULT_PROFILE,)
        if order.profile is not None:
            return order.profile if order.profile in deployed else None
        return order.airflow_queue if order.airflow_queue in deployed else DEFAULT_PROFILE

    def started(self, call: Call) -> None:
        """A spawn has returned its function call id."""
        call.heard_at = time.monotonic()
        if call.settled:
            self._spawn_task(self._cancel(call))
            return
        self._tell(NewsKind.STARTED, call)

    # --- outcomes ---

    def _told(self, entry: Entry) -> None:
        """An event: the ledger has this entry, or had it."""
        call = self._calls.get(entry.work_id)
        if call is None:
            self._forget([entry.work_id])
            return
        call.heard_at = time.monotonic()
        if entry.state is not State.RUNNING:
            self._deliver(call, entry)

    def _apply_found(self, call: Call, decision: Decision, entry: Entry | None) -> None:
        if decision.action is Action.DELIVER and entry is not None:
            self._deliver(call, entry)
        else:
            self.apply(call, decision)

    def apply(self, call: Call, decision: Decision) -> None:
        """Carry out a decision other than to deliver."""
        if decision.action is Action.SUBMIT_AGAIN:
            log.warning("%s: %s; submitted again", call.label, decision.reason)
            call.function_call_id = None
            call.heard_at = time.monotonic()
            self._submitter.put_later(call)
        elif decision.action is Action.RUN_AGAIN:
            self._run_again(call, decision.reason)
        elif decision.action is Action.TIME_OUT:
            self._spawn_task(self._cancel(call))
            self.apply(call, lost_after_claim(call, decision.reason, self.policy))
        elif decision.action is Action.FAIL:
            self._fail(call, decision.reason)

    def _run_again(self, call: Call, reason: str) -> None:
        assert call.submission is not None
        log.warning("%s: %s; run again", call.label, reason)
        self._settle_call(call)
        work_id = str(uuid.uuid4())
        again = Call(
            key=call.key,
            work_id=work_id,
            origin=call.origin,
            log_path=call.log_path,
            label=call.label,
            kind=call.kind,
            heard_at=time.monotonic(),
            submission=dataclasses.replace(call.submission, work_id=work_id),
            options=call.options,
        )
        self._calls.add(again)
        self._add_reason(call.log_path, f"{reason}; it is run again")
        self._forget_call(call)
        self._submitter.put(again)

    def _deliver(self, call: Call, entry: Entry) -> None:
        if call.settled:
            return
        failed = entry.state is State.FAILED
        if failed and call.kind is Kind.COMMAND and entry.return_code is None:
            decision = lost_after_claim(call, entry.reason or "it was lost", self.policy)
            if decision.action is Action.RUN_AGAIN:
                self._run_again(call, decision.reason)
                return
        self._settle_call(call)
        call.function_call_id = call.function_call_id or entry.function_call_id
        self._tell(NewsKind.FAILED if failed else NewsKind.SUCCESS, call, entry.reason, entry)

    def _fail(self, call: Call, reason: str) -> None:
        if call.settled:
            return
        self._settle_call(call)
        self._add_reason(call.log_path, reason)
        self._tell(NewsKind.FAILED, call, reason)

    def _tell(self, kind: NewsKind, call: Call, reason: str | None = None, entry: Entry | None = None) -> None:
        self._news.append(News(kind, call.key, call.origin, call.work_id, call.function_call_id, reason, entry))

    def _settle_call(self, call: Call) -> None:
        call.settled = True
        if call.may_start_again:
            self._kept_claims.append(call.work_id)
        self._calls.discard(call)

    # --- ending and clearing up ---

    def _end_call(self, key: Any, reason: str) -> None:
        call = self._calls.of_key(key)
        if call is not None:
            log.info("%s: its function call is ended: %s", call.label, reason)
            self._settle_call(call)
            self._spawn_task(self._cancel(call))
            self._spawn_task(self._bar(call, reason))

    async def _cancel(self, call: Call) -> None:
        if call.function_call_id is not None:
            await self.remote.cancel(call.function_call_id)

    async def _bar(self, call: Call, reason: str) -> bool:
        """Take a work id that no worker has begun, so that none ever will; False if one has."""
        return await self.remote.claim(
            Entry(
                work_id=call.work_id,
                state=State.FAILED,
                function_call_id=call.function_call_id or "",
                container_id="",
                owner=self.partition,
                label=call.label,
                reason=reason,
            )
        )

    def _forget(self, work_ids: Sequence[str]) -> None:
        """Remove entries, but those that keep a second function call for the same work from running it twice: they
        expire by themselves."""
        for work_id in work_ids:
            if work_id in self._kept_claims:
                self._kept_claims.remove(work_id)
            elif self.remote is not None:
                self._spawn_task(self.remote.forget(work_id))

    def _forget_call(self, call: Call) -> None:
        self._forget([call.work_id])

    def _add_reason(self, log_path: str, reason: str) -> None:
        if self.remote is not None:
            logs = self.remote.logs
            self._spawn_task(in_daemon_thread(lambda: logs.add_reason(log_path, reason)))

    async def _adopt(self, adoptions: Sequence[Adoption], answer: Future[set[Any]]) -> None:
        barred = await asyncio.gather(*(self._adopt_one(adoption) for adoption in adoptions))
        if not answer.done():
            answer.set_result({key for key in barred if key is not None})

    async def _adopt_one(self, adoption: Adoption) -> Any:
        call = Call(
            key=adoption.key,
            work_id=adoption.work_id,
            log_path=adoption.log_path,
            label=adoption.label,
            kind=Kind.WORKLOAD,
            heard_at=0.0,
            function_call_id=adoption.function_call_id,
        )
        self._calls.add(call)
        try:
            if await self._bar(call, "Its scheduler died before a container began it; Airflow queues it again"):
                self._settle_call(call)
                self._spawn_task(self._cancel(call))
                return call.key
            decision, entry = await self._sweeper.judge(call)
            self._apply_found(call, decision, entry)
        except FAILURES as error:
            log.warning("%s was adopted but not yet looked up: %s", call.label, error)
        return None


def _log_failure(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and (error := task.exception()) is not None:
        log.warning("A call to Modal failed: %s: %s", type(error).__name__, error)
