"""What is in flight and what becomes of it: the engine's calls, from an order to the news of its end.

Runs on the engine's loop alone. Decides nothing about silent calls (``calls.decide`` does) and opens no connection.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
import uuid
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from modal import exception

from modalflow.errors import WorkloadRejectedError
from modalflow.executor.lifecycle.airflow_state import Enquiries
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.lifecycle.calls import Calls
from modalflow.executor.lifecycle.decision import Action, Decision, Policy, lost_after_claim
from modalflow.executor.lifecycle.failures import Failures
from modalflow.executor.mailbox import News, NewsKind, Order
from modalflow.executor.modal_api.modal_api import FAILURES, Remote
from modalflow.executor.reporting.log_dedup import Alike
from modalflow.executor.reporting.loggers import logger
from modalflow.executor.reporting.metrics import OUTCOME_LATENCY, SUBMIT_LATENCY
from modalflow.executor.submission.option_sets import OptionSets
from modalflow.executor.submission.placer import Placer
from modalflow.executor.submission.routing import Routing, UnknownProfileError
from modalflow.executor.workload_guard import alone
from modalflow.protocol.messages import Deployment, Entry, Kind, State
from modalflow.reasons import Cause, explain
from modalflow.support.backoff import Backoff
from modalflow.support.described import describe

log = logger(__name__)

#: Seconds for which a cancellation is asked for, and between two tries.
INSISTENCE = 600.0
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 30.0

#: Claims kept in the ledger of work that may be begun a second time; the oldest are forgotten here, and expire there.
KEPT_CLAIMS = 10_000

#: Attempts to remove an entry from the ledger, and seconds after the first of them, five times as long each.
FORGET_TRIES = 3
FORGET_PAUSE = 1.0

KNOWN_CAUSES = frozenset(cause.value for cause in Cause)

#: Ends of which Modal may know more than the worker.
EXPLAINED = (Cause.CANCELLED.value, Cause.CONTAINER_STOPPED.value)


@dataclass
class Link:
    """The connection to Modal as it is now; None until the first one is made."""

    remote: Remote | None = None
    deployment: Deployment | None = None

    def made(self) -> Remote:
        """The connection; only what runs after the first one was made may ask."""
        assert self.remote is not None, "no work on Modal before the first connection"
        return self.remote


@dataclass
class Tracker:
    """The calls in flight, and the news of them that the executor has not fetched yet."""

    partition: str
    policy: Policy
    link: Link
    run: Callable[[Coroutine[Any, Any, Any]], object]
    """Starts a coroutine on the engine's loop."""
    calls: Calls = field(default_factory=Calls)
    news: deque[News] = field(default_factory=deque)
    submit: Callable[[Call], None] = lambda call: None
    submit_later: Callable[[Call], None] = lambda call: None
    ask_airflow: Callable[[Call, str], None] = lambda call, reason: None
    enquiries: Enquiries = field(default_factory=Enquiries)
    counts: Counter[str] = field(default_factory=Counter)
    """What has happened how often, for whoever looks in: taken, adopted, resubmitted, lost by cause (``lost.CAUSE``),
    and each kind of news."""
    timed: Callable[[str, float], None] = lambda name, seconds: None
    """Takes the durations that ``metrics`` has names for."""
    say: Callable[[str, str, str], None] = lambda log_path, text, level: None
    """Adds a line to a workload's log: path, text, level."""
    clean: Callable[[Coroutine[Any, Any, Any]], object] | None = None
    """As ``run``, for what removes entries that nobody needs; ``run`` if not given."""
    trouble: str = ""
    """Why Modal takes nothing at present; empty while it does."""
    explain: Callable[[Call, Entry], Coroutine[Any, Any, None]] | None = None
    """Asks Modal about the end of a cancelled call, then delivers it."""
    placer: Placer = field(default_factory=lambda: Placer(Routing(), OptionSets(0, time.monotonic)))
    look_at_deployed: Callable[[], None] | None = None
    """Has what is deployed read again, then calls ``place_unplaced``."""
    begin_anew: Callable[[Call, Entry], None] | None = None
    """Takes work that a container had and could not begin, because Airflow's API did not answer."""
    _kept_claims: dict[str, None] = field(default_factory=dict)
    _refused: Alike = field(default_factory=lambda: Alike(log))

    def __post_init__(self) -> None:
        self._failures = Failures(self.news.append, lambda work_id: self.forget([work_id]), self.enquiries)

    def take(self, orders: Sequence[Order]) -> None:
        """Take orders: each becomes a call, and is submitted."""
        for order in orders:
            self.counts["taken"] += 1
            call = Call.accepted(order, time.monotonic())
            self.calls.add(call)
            with alone(self, call.work_id, "preparing its submission"):
                self._submit_unplaced(call)

    def submit_adopted(self, call: Call, order: Order) -> None:
        """Submit adopted work again, by an order that was made anew: same work id, as it may still begin elsewhere."""
        call.requested(order, time.monotonic())
        self._submit_unplaced(call)

    def _submit_unplaced(self, call: Call) -> None:
        """Place a call and submit it; where its profile is not known, what is deployed is looked at first."""
        if self.link.remote is None:
            # Nobody knows yet what is deployed.
            return
        try:
            self._place(call)
        except UnknownProfileError as error:
            if self.look_at_deployed is None:
                self._turn_away(call, error)
            else:
                self.look_at_deployed()

    def unplaced(self) -> list[Call]:
        """Return what is not submitted before it is known what is deployed."""
        return [call for call in self.calls if call.phase is Phase.UNPLACED]

    def place_unplaced(self, calls: Sequence[Call] | None = None) -> None:
        """Place these, or all that wait for that, now that it is known what is deployed; turn away what asks for
        something else."""
        for call in self.unplaced() if calls is None else calls:
            if call.phase is not Phase.UNPLACED:
                continue
            with alone(self, call.work_id, "preparing its submission"):
                try:
                    self._place(call)
                except UnknownProfileError as error:
                    self._turn_away(call, error)

    def _place(self, call: Call) -> None:
        order = call.request
        assert order is not None, "an UNPLACED call has a request"
        try:
            place = self.placer.place(order, self.link.deployment)
        except UnknownProfileError:
            raise
        except WorkloadRejectedError as error:
            self._turn_away(call, error)
            return
        if place.warning:
            self.say(call.log_path, place.warning, "warning")
        submission = dataclasses.replace(
            order.submission, profile=place.profile, partition=self.partition, resources=place.granted
        )
        call.placed(submission, place.options)
        self.submit(call)

    def _turn_away(self, call: Call, error: WorkloadRejectedError) -> None:
        self.fail(call, explain(Cause.REJECTED, said=str(error)), Cause.REJECTED)

    def started(self, call: Call) -> None:
        """A spawn has returned its function call id."""
        self.trouble = ""
        self.timed(SUBMIT_LATENCY, time.time() - call.accepted_at)
        if call.settled:
            self.run(self._cancel(call))
            return
        self._tell(NewsKind.STARTED, call)

    def told(self, entry: Entry, partition: str) -> None:
        """An event, from a partition: the ledger has this entry, or had it."""
        call = self.calls.get(entry.work_id)
        if call is None:
            if partition == self.partition:
                self.forget([entry.work_id])
            # Else another scheduler may have adopted it, and finds it in the ledger.
            return
        call.heard(time.monotonic())
        if entry.state is not State.RUNNING:
            self._ended(call, entry)

    def apply_found(self, call: Call, decision: Decision, entry: Entry | None) -> None:
        """Carry out a decision that was made with this entry at hand."""
        if decision.action is Action.DELIVER and entry is not None:
            self._ended(call, entry)
        else:
            if entry is not None:
                self.found_running(call, entry)
            if not call.is_deciding:
                self.apply(call, decision)

    def found_running(self, call: Call, entry: Entry) -> None:
        """The ledger has the claim of a container: listen for its end where it will be told."""
        now = time.monotonic()
        due_at = now + entry.started_at + self.policy.task_timeout - time.time()
        call.claimed(entry, now, due_at, entry.partition if entry.partition != self.partition else "")

    def others_partitions(self) -> set[str]:
        """The partitions of other executors on which the ends of calls arrive that are in flight here."""
        return {call.partition for call in self.calls if call.partition}

    def apply(self, call: Call, decision: Decision) -> None:
        """Carry out a decision other than to deliver."""
        if decision.action is Action.SUBMIT_AGAIN:
            self.counts["resubmitted"] += 1
            log.warning("%s is submitted again: %s", call.label, decision.reason)
            call.lost(time.monotonic())
            self.submit_later(call)
        elif decision.action is Action.RUN_AGAIN:
            self._run_again(call, decision.reason)
        elif decision.action is Action.TIME_OUT:
            self.run(self._cancel(call))
            self.apply(call, lost_after_claim(call, decision.reason, self.policy, decision.cause))
        elif decision.action is Action.ASK_AIRFLOW:
            self.ask_airflow(call, decision.reason)
        elif decision.action is Action.FAIL:
            self.fail(call, decision.reason, decision.cause)

    def over(self, call: Call) -> None:
        """Airflow no longer waits for this work: forget it without a word, and let nothing of it begin."""
        log.info("%s: Airflow no longer waits for it", call.label)
        self._settle_call(call)
        self._keep_claim(call)
        self.run(self._cancel(call))
        self.run(self._bar(call, "Airflow no longer waited for it"))
        self._tell(NewsKind.OVER, call)

    def _run_again(self, call: Call, reason: str) -> None:
        log.warning("%s runs again: %s", call.label, reason)
        self._settle_call(call)
        again = call.successor(str(uuid.uuid4()), time.monotonic(), time.time())
        self.calls.add(again)
        policy = "It runs again because of [modal_executor] lost_command_policy."
        self.add_reason(call.log_path, f"{reason} {policy}")
        self.forget([call.work_id])
        self.submit(again)

    def _ended(self, call: Call, entry: Entry) -> None:
        if entry.function_call_id == call.retired_call_id and call.retired_call_id:
            return
        if entry.cause == Cause.API_UNREACHABLE.value and not call.settled and self.begin_anew is not None:
            self.begin_anew(call, entry)
        elif entry.cause not in EXPLAINED or call.settled:
            self.deliver(call, entry)
        elif call.phase not in (Phase.EXPLAINING, Phase.RETRYING):
            assert self.explain is not None, "the engine sets it before there are calls"
            call.explaining(entry)
            self.run(self.explain(call, entry))

    def deliver(self, call: Call, entry: Entry) -> None:
        """Tell the outcome that the ledger has."""
        if call.settled:
            return
        failed = entry.state is State.FAILED
        by_hand = entry.cause == Cause.BY_HAND.value
        if by_hand:
            self.add_reason(call.log_path, entry.reason or "It was ended by hand")
        if failed and call.kind is Kind.COMMAND and entry.return_code is None and not by_hand:
            decision = lost_after_claim(call, entry.reason or "it was lost", self.policy)
            if decision.action is Action.RUN_AGAIN:
                self._run_again(call, decision.reason)
                return
        self._settle_call(call, entry.function_call_id)
        if entry.finished_at is not None:
            self.timed(OUTCOME_LATENCY, time.time() - entry.finished_at)
        if failed and entry.cause:
            self._lost(Cause(entry.cause) if entry.cause in KNOWN_CAUSES else Cause.OTHER)
        self._tell(NewsKind.FAILED if failed else NewsKind.SUCCESS, call, entry.reason, entry)

    def _lost(self, cause: Cause) -> None:
        self.counts[f"lost.{cause.value}"] += 1

    def fail(self, call: Call, reason: str, cause: Cause = Cause.OTHER) -> None:
        """End a call as failed, for that reason."""
        if call.settled:
            return
        self._lost(cause)
        self._settle_call(call)
        adopted = not call.has_request
        if (adopted or call.function_call_id is not None) and not call.may_start_again:
            # Whatever Modal said of it, a container that still gets it must find the claim taken.
            self._keep_claim(call)
        self.run(self._bar(call, reason))
        self.add_reason(call.log_path, reason)
        self._tell(NewsKind.FAILED, call, reason)

    def _tell(self, kind: NewsKind, call: Call, reason: str | None = None, entry: Entry | None = None) -> None:
        self.counts[kind.name.lower()] += 1
        news = News(kind, call.key, call.origin, call.work_id, call.function_call_id, reason, entry)
        if kind is NewsKind.FAILED and call.kind is Kind.WORKLOAD:
            self._failures.tell(news)
        else:
            self.news.append(news)

    def _keep_claim(self, call: Call) -> None:
        """Let the ledger's entry stay after the outcome was delivered."""
        self._kept_claims[call.work_id] = None
        while len(self._kept_claims) > KEPT_CLAIMS:
            del self._kept_claims[next(iter(self._kept_claims))]

    def _settle_call(self, call: Call, function_call_id: str = "") -> None:
        call.settle(function_call_id)
        if call.may_start_again:
            self._keep_claim(call)
        self.calls.discard(call)

    def end_call(self, key: Any, said: str) -> None:
        """End the call of a key that nobody wants any more, begun or not; no news is told of it."""
        call = self.calls.of_key(key)
        if call is not None:
            reason = explain(Cause.REVOKED, said=said, call=call.function_call_id or "")
            log.info("%s: %s", call.label, reason)
            self._settle_call(call)
            self.add_reason(call.log_path, reason)
            self.run(self._cancel(call))
            self.run(self._bar(call, reason))

    async def _cancel(self, call: Call) -> None:
        """End a call on Modal, however often that has to be asked for: what is not ended costs money."""
        function_call_id = call.function_call_id
        if function_call_id is not None:
            await self._insist(lambda remote: remote.cancel(function_call_id), f"cancel {call.label}")

    async def _bar(self, call: Call, reason: str) -> None:
        """Take a work id that no worker has begun, so that none ever will."""
        if not (call.attempts or call.spawn_unconfirmed or not call.has_request):
            # Nobody on Modal was ever told of it.
            return
        entry = Entry(
            work_id=call.work_id,
            state=State.FAILED,
            function_call_id=call.function_call_id or "",
            container_id="",
            owner=self.partition,
            label=call.label,
            reason=reason,
        )
        await self._insist(lambda remote: remote.claim(entry), f"bar {call.label} from beginning")

    async def _insist(
        self,
        ask: Callable[[Remote], Awaitable[object]],
        what: str,
        backoff: Backoff | None = None,
        asked: float = 0.0,
    ) -> None:
        """Ask Modal for something until it does it, or there is no more use in it."""
        asked, backoff = asked or time.monotonic(), backoff or Backoff(FIRST_PAUSE, LONGEST_PAUSE)
        try:
            await ask(self.link.made())
        except exception.NotFoundError:
            return
        except FAILURES as error:
            if time.monotonic() - asked > INSISTENCE:
                log.error("Gave up to %s (%s)", what, describe(error))
                return
            kind = type(error).__name__
            self._refused.warn((what.split()[0], kind), "Could not %s yet (%s)", what, describe(error))
            loop = asyncio.get_running_loop()
            loop.call_later(backoff.next(), lambda: self.run(self._insist(ask, what, backoff, asked)))

    def forget(self, work_ids: Sequence[str]) -> None:
        """Remove entries, but those that keep a second function call for the same work from running it twice: they
        expire by themselves."""
        for work_id in work_ids:
            if self._failures.keeps(work_id):
                continue
            if work_id in self._kept_claims:
                del self._kept_claims[work_id]
            elif self.link.remote is not None:
                (self.clean or self.run)(self._forget(work_id))

    async def _forget(self, work_id: str) -> None:
        """Remove an entry. Where Modal does not take that for long, it stays, until it expires by itself."""
        backoff = Backoff(FORGET_PAUSE, LONGEST_PAUSE, factor=5.0)
        while backoff.failures < FORGET_TRIES:
            with contextlib.suppress(*FAILURES):
                return await self.link.made().forget(work_id)
            # Waiting here holds up other entries only, and is meant to: they would fare no better.
            await asyncio.sleep(backoff.next())
        log.info("The ledger's entry of %s stays behind", work_id)

    def add_reason(self, log_path: str, reason: str) -> None:
        """Write a reason into a workload's log, as soon as there is a connection."""
        self.say(log_path, reason, "error")

    def describe(self) -> list[str]:
        """What is in flight, a line each, for an operator; may be called from any thread."""
        now, wall_clock = time.monotonic(), time.time()
        lines = [f"Modal accepts no work: {self.trouble}"] if self.trouble else []
        return lines + [
            f"{call.label}: {_state(call)} since {wall_clock - call.accepted_at:.0f} s, function call "
            f"{call.function_call_id or 'none yet'}, work id {call.work_id}, {call.attempts} submissions, silent for "
            f"{now - call.updated_at:.0f} s, partition {call.partition or self.partition}"
            for call in self.calls
        ]


def _state(call: Call) -> str:
    if call.container_id:
        return f"running in container {call.container_id}, handed over"
    return "waiting for a container" if call.function_call_id else "waiting to be submitted"
