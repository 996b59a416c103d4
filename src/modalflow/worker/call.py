"""One function call of the worker, from the submission to the outcome: claim, execute, report.

Raises nothing except a cancellation: the scheduler's process would unpickle an exception of a container. Every outcome
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
from modalflow.cost.usage import longest, most_memory
from modalflow.errors import BundleError, HomeError, MalformedMessageError
from modalflow.protocol.messages import PROTOCOL, Entry, Kind, State, Submission
from modalflow.reasons import Cause, Reason, explain
from modalflow.support import linux
from modalflow.support.described import describe
from modalflow.support.text import clean
from modalflow.worker.container import Container
from modalflow.worker.ledger import Claim
from modalflow.worker.logs.first_line import first_line
from modalflow.worker.logs.log_files import CallLog
from modalflow.worker.probe import answer_probe
from modalflow.worker.turn import seconds_until_turn
from modalflow.worker.usage.usage_recorder import CallUsage
from modalflow.worker.zygote.client import ZygoteEndedError
from modalflow.worker.zygote.isolation import temporary_folder
from modalflow.worker.zygote.protocol import ForkRequest, ForkResult, Outcome

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Seconds of a wait that the task's log explains.
_NOTED_WAIT = 1.0

#: The exit code of a shell for a program that cannot be executed. A command with it was not lost.
_NOT_EXECUTABLE = 126

#: A shell adds the number of the signal that ended a program to this.
_SIGNAL_BASE = 128
#: The asyncio tasks of this container that perform function calls.
_performing: WeakSet[asyncio.Task[Any]] = WeakSet()


@dataclass(frozen=True)
class Call:
    """A function call that carries a submission."""

    container: Container
    function_call_id: str
    usage: CallUsage
    """It is closed when the work is over."""

    async def perform(self, wire: object) -> dict[str, Any]:
        """Carry out the submission, once, and return the outcome."""
        try:
            return await self._claim_and_execute(wire)
        finally:
            self.usage.drop()

    async def _claim_and_execute(self, wire: object) -> dict[str, Any]:
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
            return await answer_probe(self.container, submission)
        if self.container.problem:
            # Without a log: the folder for logs is not the logs Volume, but a Volume of the user.
            failure = f"Nothing can run in container {self.container.id}: {self.container.problem}."
            return await self._refuse(dataclasses.replace(claim, reason=failure), "")
        granted = self.container.granted(submission)
        claim = dataclasses.replace(
            claim,
            state=State.RUNNING,
            task=submission.task_try,
            profile=submission.profile,
            memory_mib=most_memory(granted),
            timeout=longest(granted),
            submitted_at=submission.submitted_at,
            spawned_at=submission.spawned_at,
            container_started_at=self.container.usage.container_started_at,
        )
        try:
            result, found = await self.container.ledger.claim(claim)
        except asyncio.CancelledError as error:
            reason = self._why_cancelled(submission, error)
            refused = dataclasses.replace(claim, reason=str(reason), cause=reason.cause.value)
            await _uninterrupted(self._refuse(refused, submission.log_path))
            raise
        except Exception as error:  # noqa: BLE001  Nothing may be raised: see the module's docstring.
            failure = f"The worker could not claim the work in {self._where()}: {describe(error)}"
            return await self._refuse(dataclasses.replace(claim, reason=failure), submission.log_path)
        if result is Claim.OURS:
            self.usage.claimed()
            return await self._execute(submission, claim)
        if result is Claim.LOST:
            return await self._settle_lost(submission, claim, found)
        if result is Claim.ENDED:
            await self.container.ledger.send(found)
            return _to_wire(found)
        log.info("Another function call has %s: there is nothing to do here", submission.label)
        return {"work_id": submission.work_id, "state": "duplicate"}

    async def _execute(self, submission: Submission, claim: Entry) -> dict[str, Any]:
        """Execute claimed work and record its outcome."""
        try:
            call_log = CallLog(self.container.log_root, submission.log_path, self.function_call_id)
            outcome = await self._execute_logged(submission, call_log)
        except asyncio.CancelledError as error:
            await _uninterrupted(self._finish(_ended(claim, self._cancelled(submission, error))))
            raise
        except Exception as error:  # Nothing may be raised: see the module's docstring.
            log.exception("%s failed in the worker", submission.label)
            reason = f"The worker failed in {self._where()} with {describe(error)}"
            outcome = Outcome(State.FAILED, reason=reason)
        return await _uninterrupted(self._finish(_ended(claim, outcome)))

    async def _execute_logged(self, submission: Submission, call_log: CallLog) -> Outcome:
        text, fields = first_line(
            function_call_id=self.function_call_id,
            profile=submission.profile,
            resources=self.container.granted(submission),
            environ=self.container.variables,
            sized=submission.sized,
        )
        call_log.open(
            text,
            function_call_id=self.function_call_id,
            container_id=self.container.id,
            profile=submission.profile,
            **fields,
            work_id=submission.work_id,
            worker_version=__version__,
        )
        if submission.note:
            call_log.warning(submission.note)
        outcome: Outcome | None = None
        try:
            with self.container.log_publisher.watching(call_log), self.container.execution_api.noting(call_log):
                outcome = await self._execute_in_environment(submission, call_log)
            return outcome
        except asyncio.CancelledError as error:
            outcome = self._cancelled(submission, error)
            raise
        finally:
            # Before the ledger: a reader who sees the end of the work must be able to read the whole log.
            await _uninterrupted(self._close_log(submission, call_log, outcome))

    async def _execute_in_environment(self, submission: Submission, call_log: CallLog) -> Outcome:
        try:
            async with self.container.environment_for(submission) as shared:
                with temporary_folder(shared) as env:
                    return await self._fork(env, submission, call_log)
        except (BundleError, HomeError) as error:
            cause = Cause.DAGS_UNAVAILABLE if isinstance(error, BundleError) else Cause.HOME_UNAVAILABLE
            reason = self._explain(cause, str(error))
            return Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)

    async def _fork(self, env: Mapping[str, str], submission: Submission, call_log: CallLog) -> Outcome:
        if problem := variables.problem(env, linux.most_for_variables()):
            reason = f"Nothing can be started in container {self.container.id}: {problem}."
            return Outcome(State.FAILED, return_code=_NOT_EXECUTABLE, reason=reason)
        command = submission.command
        request = ForkRequest(
            id=uuid.uuid4().hex,
            kind=submission.kind,
            log_file=str(call_log.path),
            log_root=str(self.container.log_root),
            env=env,
            workload=submission.workload,
            command=list(command) if isinstance(command, tuple) else command,
        )
        try:
            zygote = await self.container.zygote_for(submission.kind, env)
            for note in (await zygote.imported()).notes:
                call_log.warning(note)
        except ZygoteEndedError as error:
            return self._died(error)
        if submission.start_after:
            await _wait_for_turn(submission, await zygote.ready(), call_log)
        try:
            with self.usage.sampling(lambda: zygote.pid_of(request.id)):
                result = await zygote.fork(request)
        except asyncio.CancelledError as error:
            is_stop = self._why_cancelled(submission, error).cause is Cause.CONTAINER_STOPPED
            notice = is_stop and submission.executor_reports_stop
            self.usage.ended(await _uninterrupted(zygote.stop(request.id, notice=notice)))
            raise
        except ZygoteEndedError as error:
            return self._died(error)
        self.usage.ended(result)
        return _command_outcome(result) if submission.kind is Kind.COMMAND else self._workload_outcome(result)

    def _died(self, error: ZygoteEndedError) -> Outcome:
        if error.killed:
            reason = self._explain(Cause.ZYGOTE_KILLED, str(error))
            return Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)
        return Outcome(
            State.FAILED, reason=f"The process that runs workloads in container {self.container.id} died: {error}"
        )

    def _workload_outcome(self, result: ForkResult) -> Outcome:
        """Return the outcome of one of Airflow's workloads: the one that its supervisor reported, if it could."""
        outcome = result.outcome
        if outcome is not None and outcome.cause:
            reason = self._explain(Cause(outcome.cause), outcome.reason or "")
            return dataclasses.replace(outcome, reason=str(reason))
        if outcome is not None:
            return outcome
        hint = " It may have run out of memory." if result.return_code == -9 else ""
        how = f"{linux.describe_exit(result.return_code)} without reporting an outcome"
        return Outcome(State.FAILED, reason=f"Airflow's supervisor in {self._where()} ended with {how}.{hint}")

    def _explain(self, cause: Cause, detail: str = "") -> Reason:
        return explain(cause, detail=detail, container=self.container.id, call=self.function_call_id)

    def _where(self) -> str:
        return f"container {self.container.id}, function call {self.function_call_id},"

    def _why_cancelled(self, submission: Submission, error: asyncio.CancelledError) -> Reason:
        """Return whether this call alone was cancelled, or the container is being stopped.

        A stopped container gets SIGINT. Modal's runtime then cancels its task that fetches inputs, and with it those
        of the inputs (modal/_runtime/user_code_event_loop.py). In a container that takes one input at a time, both
        cases cancel the same task, and only the cancellation of the input has a message.
        """
        if self.container.granted(submission).get("concurrency") == 1:
            stopped = not any(error.args)
        else:
            stopped = any(task.cancelling() for task in asyncio.all_tasks() if task not in _performing)
        return self._explain(Cause.CONTAINER_STOPPED if stopped else Cause.CANCELLED)

    def _cancelled(self, submission: Submission, error: asyncio.CancelledError) -> Outcome:
        reason = self._why_cancelled(submission, error)
        return Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)

    async def _close_log(self, submission: Submission, call_log: CallLog, outcome: Outcome | None) -> None:
        if footer := self.usage.record(submission, outcome, self.container.granted):
            call_log.footer(footer)
        if outcome is not None and outcome.reason:
            call_log.error(outcome.reason)
        if not await self.container.log_publisher.publish():
            log.warning("The end of %s is not published yet; Modal publishes it when the container ends", call_log.path)

    async def _settle_lost(self, submission: Submission, claim: Entry, found: Entry) -> dict[str, Any]:
        """Record the failure of work whose container was lost."""
        reason = explain(Cause.CONTAINER_LOST, container=found.container_id, call=self.function_call_id)
        lost = Outcome(State.FAILED, reason=str(reason), cause=reason.cause.value)
        ended = _ended(dataclasses.replace(claim, started_at=found.started_at), lost)
        try:
            call_log = CallLog(self.container.log_root, submission.log_path, self.function_call_id)
            if footer := self.usage.record_lost(submission, found, self.container.granted, lost):
                call_log.footer(footer)
            call_log.error(reason)
            await self.container.log_publisher.publish()
            await self.container.ledger.take_over(ended)
        except Exception:  # Nothing may be raised: see the module's docstring.
            log.exception("The end of %s could not be recorded", submission.label)
        return _to_wire(ended)

    async def _finish(self, ended: Entry) -> dict[str, Any]:
        """Record the outcome of claimed work and return it; if recording fails, the return value still has it."""
        try:
            await self.container.ledger.finish(ended)
        except Exception:  # Nothing may be raised: see the module's docstring.
            log.exception("The outcome of %s could not be recorded", ended.label)
        return _to_wire(ended)

    async def _refuse(self, claim: Entry, log_path: str) -> dict[str, Any]:
        """Record the failure of work that was not claimed."""
        ended = _ended(claim, Outcome(State.FAILED, reason=claim.reason, cause=claim.cause))
        try:
            if log_path and claim.reason:
                CallLog(self.container.log_root, log_path, self.function_call_id).error(claim.reason)
                await self.container.log_publisher.publish()
        except (MalformedMessageError, OSError) as error:
            log.warning("The log of %s could not be written: %s", ended.label, error)
        try:
            if claim.work_id:
                await self.container.ledger.refuse(ended)
        except Exception:  # Nothing may be raised: see the module's docstring.
            log.exception("The outcome of %s could not be recorded", ended.label)
        return _to_wire(ended)

    def _unclaimed(self, wire: object) -> Entry:
        """Return the entry of a submission that may be unreadable."""
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
            f"The executor (modalflow {wire.get('executor_version') or 'unknown'}) uses protocol {theirs}, "
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


def _command_outcome(result: ForkResult) -> Outcome:
    """Return the outcome of a raw command: its exit code decides."""
    if result.outcome is not None:
        return result.outcome
    if result.return_code == 0:
        return Outcome(State.SUCCESS, 0)
    code = result.return_code if result.return_code > 0 else _SIGNAL_BASE - result.return_code
    return Outcome(State.FAILED, code, reason=f"The command ended with {linux.describe_exit(result.return_code)}.")


async def _wait_for_turn(submission: Submission, ready_at: float, call_log: CallLog) -> None:
    wait = seconds_until_turn(submission, ready_at, time.time())
    if wait >= _NOTED_WAIT:
        call_log.info(f"Starts in {wait:.1f} s: the tasks of a burst ask Airflow's API server one after the other")
    await asyncio.sleep(wait)


async def _uninterrupted(work: Coroutine[Any, Any, _T]) -> _T:
    """Complete some work although the surrounding task is being cancelled, perhaps several times."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()
