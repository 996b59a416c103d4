"""One function call of the worker, from the submission to the outcome: claim, run, report.

Never raises but for cancellation: what a container raises would be unpickled in the scheduler's process. Every outcome
is a dict of plain values.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
import uuid
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from weakref import WeakSet

from modalflow import __version__
from modalflow.config import variables
from modalflow.errors import BundleError, MalformedMessageError
from modalflow.protocol.messages import PROTOCOL, Entry, Kind, State, Submission
from modalflow.reasons import Cause, Reason, explain
from modalflow.support.described import describe
from modalflow.support.text import clean
from modalflow.worker.container import Container
from modalflow.worker.ledger import Claim
from modalflow.worker.logs.first_line import header
from modalflow.worker.logs.segments import Segment
from modalflow.worker.probe import answer
from modalflow.worker.usage import Account
from modalflow.worker.zygote import processes
from modalflow.worker.zygote.client import Nursery, ZygoteEndedError
from modalflow.worker.zygote.protocol import Ending, Order, Outcome
from modalflow.worker.zygote.scratch import scratch

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds between asking what runs to end and killing it. The supervisor gives a task as long to run its on_kill().
TERM_GRACE = 5.0

#: Seconds that a zygote has to tell the end of what it was told to kill.
KILL_GRACE = 5.0

#: What a shell reports for a program that cannot be executed. A command that has it was not lost.
_NOT_EXECUTABLE = 126

#: A shell adds the number of the signal that ended a program to this.
_SIGNAL_BASE = 128

#: The tasks of this container that are function calls.
_performing: WeakSet[asyncio.Task[Any]] = WeakSet()


@dataclass(frozen=True)
class Call:
    """A function call that carries a submission."""

    container: Container
    function_call_id: str
    account: Account
    """It is closed where the work is over."""

    async def perform(self, wire: object) -> dict[str, Any]:
        """Do what the submission asks for, once, and return the outcome."""
        try:
            return await self._perform(wire)
        finally:
            self.account.drop()

    async def _perform(self, wire: object) -> dict[str, Any]:
        if (task := asyncio.current_task()) is not None:
            _performing.add(task)
        claim = self._unclaimed(wire)
        try:
            submission = _read(wire)
        except (MalformedMessageError, _WrongProtocolError) as error:
            log_path = wire.get("log_path") if isinstance(wire, dict) else None
            refused = dataclasses.replace(claim, reason=str(error), cause=Cause.INCOMPATIBLE.value)
            return await self._refuse(refused, str(log_path or ""))
        if submission.kind is Kind.PROBE:
            return await answer(self.container, submission)
        if self.container.problem:
            # Without a log: what is written where logs should be would land in a user's Volume.
            failure = f"Nothing can run in container {self.container.id}: {self.container.problem}."
            return await self._refuse(dataclasses.replace(claim, reason=failure), "")
        claim = dataclasses.replace(claim, state=State.RUNNING, task=submission.task_try)
        try:
            what, found = await self.container.report.claim(claim)
        except asyncio.CancelledError:
            reason = self._why_cancelled()
            refused = dataclasses.replace(claim, reason=str(reason), cause=reason.cause.value)
            await _uninterrupted(self._refuse(refused, submission.log_path))
            raise
        except Exception as error:  # noqa: BLE001  The border of the container: see the module's docstring.
            failure = f"The worker could not claim the work in {self._where()}: {describe(error)}"
            return await self._refuse(dataclasses.replace(claim, reason=failure), submission.log_path)
        if what is Claim.OURS:
            return await self._run_claimed(submission, claim)
        if what is Claim.LOST:
            return await self._give_up_lost(submission, claim, found)
        if what is Claim.ENDED:
            await self.container.report.send(found)
            return _to_wire(found)
        log.info("%s is with another function call: nothing to do here", submission.label)
        return {"work_id": submission.work_id, "state": "duplicate"}

    async def _run_claimed(self, submission: Submission, claim: Entry) -> dict[str, Any]:
        try:
            segment = Segment(self.container.log_root, submission.log_path, self.function_call_id)
            outcome = await self._run(submission, segment)
        except asyncio.CancelledError:
            await _uninterrupted(self._finish(_ended(claim, self._cancelled())))
            raise
        except Exception as error:  # The border of the container: see the module's docstring.
            log.exception("%s failed in the worker", submission.label)
            reason = f"The worker failed in {self._where()} with {describe(error)}"
            outcome = Outcome(State.FAILED, reason=reason)
        return await _uninterrupted(self._finish(_ended(claim, outcome)))

    async def _run(self, submission: Submission, segment: Segment) -> Outcome:
        text, where = header(
            function_call_id=self.function_call_id,
            profile=submission.profile,
            resources=self.container.granted(submission),
            environ=self.container.variables,
        )
        segment.open(
            text,
            function_call_id=self.function_call_id,
            container_id=self.container.id,
            profile=submission.profile,
            **where,
            work_id=submission.work_id,
            worker_version=__version__,
        )
        if submission.note:
            segment.warning(submission.note)
        outcome: Outcome | None = None
        try:
            with self.container.commits.watching(segment):
                outcome = await self._run_in_process(submission, segment)
            return outcome
        except asyncio.CancelledError:
            outcome = self._cancelled()
            raise
        finally:
            # Whoever sees the end of the work must be able to see the whole log, so this comes before the ledger.
            await _uninterrupted(self._close(submission, segment, outcome))

    async def _run_in_process(self, submission: Submission, segment: Segment) -> Outcome:
        try:
            async with self.container.env_of(submission) as shared:
                with scratch(shared) as env:
                    return await self._run_with(env, submission, segment)
        except BundleError as error:
            reason = self._explain(Cause.DAGS_UNAVAILABLE, str(error))
            return Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)

    async def _run_with(self, env: Mapping[str, str], submission: Submission, segment: Segment) -> Outcome:
        if problem := variables.problem(env, processes.most_for_variables()):
            reason = f"Nothing can be started in container {self.container.id}: {problem}."
            return Outcome(State.FAILED, return_code=_NOT_EXECUTABLE, reason=reason)
        command = submission.command
        order = Order(
            id=uuid.uuid4().hex,
            kind=submission.kind,
            segment=str(segment.path),
            log_root=str(self.container.log_root),
            env=env,
            workload=submission.workload,
            command=list(command) if isinstance(command, tuple) else command,
        )
        nursery = await self.container.nursery_for(submission.kind, env)
        try:
            ending = await nursery.run(order)
        except asyncio.CancelledError:
            stopped = await _uninterrupted(_stop(nursery, order.id))
            self.account.used = stopped.used if stopped is not None else None
            raise
        except ZygoteEndedError as error:
            return Outcome(
                State.FAILED, reason=f"The process that runs workloads in container {self.container.id} died: {error}"
            )
        self.account.used = ending.used
        return _command_outcome(ending) if submission.kind is Kind.COMMAND else self._workload_outcome(ending)

    def _workload_outcome(self, ending: Ending) -> Outcome:
        """The outcome of one of Airflow's workloads: what its supervisor told, if it could."""
        outcome = ending.outcome
        if outcome is not None and outcome.cause:
            reason = self._explain(Cause(outcome.cause), outcome.reason or "")
            return dataclasses.replace(outcome, reason=str(reason))
        if outcome is not None:
            return outcome
        hint = " It may have run out of memory." if ending.return_code == -9 else ""
        how = f"{processes.describe_exit(ending.return_code)} without telling an outcome"
        return Outcome(State.FAILED, reason=f"Airflow's supervisor in {self._where()} ended with {how}.{hint}")

    def _explain(self, cause: Cause, said: str = "") -> Reason:
        return explain(cause, said=said, container=self.container.id, call=self.function_call_id)

    def _where(self) -> str:
        return f"container {self.container.id}, function call {self.function_call_id},"

    def _why_cancelled(self) -> Reason:
        """Whether this call alone was cancelled, or the container is being stopped.

        A stopped container gets SIGINT, upon which Modal's runtime cancels its task that fetches inputs, and with it
        those of the inputs (modal/_runtime/user_code_event_loop.py). Of a container that takes one input at a time this
        cannot be told.
        """
        stopped = any(task.cancelling() for task in asyncio.all_tasks() if task not in _performing)
        return self._explain(Cause.CONTAINER_STOPPED if stopped else Cause.CANCELLED)

    def _cancelled(self) -> Outcome:
        reason = self._why_cancelled()
        return Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)

    async def _close(self, submission: Submission, segment: Segment, outcome: Outcome | None) -> None:
        if occupied := self.account.close(submission, outcome, self.container.granted):
            segment.footer(occupied)
        if outcome is not None and outcome.reason:
            segment.error(outcome.reason)
        if not await self.container.commits.publish():
            log.warning("The end of %s is not published yet; Modal publishes it when the container ends", segment.path)

    async def _give_up_lost(self, submission: Submission, claim: Entry, found: Entry) -> dict[str, Any]:
        reason = explain(Cause.CONTAINER_LOST, container=found.container_id, call=self.function_call_id)
        lost = Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)
        ended = _ended(dataclasses.replace(claim, started_at=found.started_at), lost)
        try:
            segment = Segment(self.container.log_root, submission.log_path, self.function_call_id)
            if occupied := self.account.lost(submission, found, self.container.granted):
                segment.footer(occupied)
            segment.error(reason)
            await self.container.commits.publish()
            await self.container.report.take_over(ended)
        except Exception:  # The border of the container: see the module's docstring.
            log.exception("The end of %s could not be recorded", submission.label)
        return _to_wire(ended)

    async def _finish(self, ended: Entry) -> dict[str, Any]:
        """Record the outcome of claimed work; where that is impossible, what is returned still tells it."""
        try:
            await self.container.report.finish(ended)
        except Exception:  # The border of the container: see the module's docstring.
            log.exception("The outcome of %s could not be recorded", ended.label)
        return _to_wire(ended)

    async def _refuse(self, claim: Entry, log_path: str) -> dict[str, Any]:
        """Record the failure of work that was not claimed."""
        ended = _ended(claim, Outcome(State.FAILED, reason=claim.reason))
        try:
            if log_path and claim.reason:
                Segment(self.container.log_root, log_path, self.function_call_id).error(claim.reason)
                await self.container.commits.publish()
        except (MalformedMessageError, OSError) as error:
            log.warning("The log of %s could not be written: %s", ended.label, error)
        try:
            if claim.work_id:
                await self.container.report.refuse(ended)
        except Exception:  # The border of the container: see the module's docstring.
            log.exception("The outcome of %s could not be recorded", ended.label)
        return _to_wire(ended)

    def _unclaimed(self, wire: object) -> Entry:
        """What can be said of a submission that may be unreadable."""
        values: dict[str, Any] = wire if isinstance(wire, dict) else {}
        return Entry(
            work_id=str(values.get("work_id") or ""),
            state=State.FAILED,
            function_call_id=self.function_call_id,
            container_id=self.container.id,
            owner=uuid.uuid4().hex,
            label=str(values.get("label") or ""),
            partition=str(values.get("partition") or ""),
            started_at=time.time(),
            worker_version=__version__,
        )


class _WrongProtocolError(Exception):
    """Executor and worker do not understand each other."""


def _read(wire: object) -> Submission:
    theirs = wire.get("protocol") if isinstance(wire, dict) else None
    if isinstance(wire, dict) and theirs != PROTOCOL:
        raise _WrongProtocolError(
            f"The executor (modalflow {wire.get('executor_version') or 'unknown'}) speaks protocol {theirs}, "
            f"the deployed worker (modalflow {__version__}) protocol {PROTOCOL}. Deploy the worker with the modalflow "
            "that the scheduler runs: `modalflow deploy`."
        )
    return Submission.from_wire(wire)


def _ended(claim: Entry, outcome: Outcome) -> Entry:
    return dataclasses.replace(
        claim,
        state=outcome.state,
        finished_at=time.time(),
        return_code=outcome.return_code,
        final_state=outcome.final_state,
        reason=None if outcome.reason is None else clean(outcome.reason),
        cause=outcome.cause,
    )


def _to_wire(ended: Entry) -> dict[str, Any]:
    return {
        "work_id": ended.work_id,
        "state": str(ended.state),
        "return_code": ended.return_code,
        "final_state": ended.final_state,
        "reason": ended.reason,
        "function_call_id": ended.function_call_id,
        "container_id": ended.container_id,
    }


def _command_outcome(ending: Ending) -> Outcome:
    """The outcome of a raw command: its exit code decides."""
    if ending.outcome is not None:
        return ending.outcome
    if ending.return_code == 0:
        return Outcome(State.SUCCESS, 0)
    code = ending.return_code if ending.return_code > 0 else _SIGNAL_BASE - ending.return_code
    return Outcome(State.FAILED, code, reason=f"The command ended with {processes.describe_exit(ending.return_code)}.")


async def _stop(nursery: Nursery, order_id: str) -> Ending | None:
    await nursery.interrupt(order_id)
    try:
        async with asyncio.timeout(TERM_GRACE):
            return await nursery.wait(order_id)
    except TimeoutError:
        await nursery.kill(order_id)
        try:
            async with asyncio.timeout(KILL_GRACE):
                return await nursery.wait(order_id)
        except TimeoutError:
            # Stopped, perhaps, by what it ran.
            nursery.kill_zygote()
            return await nursery.wait(order_id)


async def _uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """Carry something through although the surrounding task is being cancelled, perhaps several times."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
