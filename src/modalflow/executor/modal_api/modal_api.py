"""What the engine asks of Modal: the only place of the executor that calls the SDK.

Every call is bounded in time, reads plain data only, and fails with one of modalflow's own errors or with the SDK's.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import modal
from modal import exception

from modalflow.airflow_compat.versions import AIRFLOW_VERSION
from modalflow.control_plane import ControlPlane, in_environment
from modalflow.errors import (
    CredentialsError,
    IncompatibleWorkerError,
    MalformedMessageError,
    ModalflowError,
    NotDeployedError,
    WorkloadRejectedError,
)
from modalflow.executor.lifecycle.decision import RETURNED, Verdict
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.call_status import ENDINGS, verdict_of
from modalflow.executor.modal_api.rate_limits import told_of_limits
from modalflow.executor.submission.resources import Resources
from modalflow.logs.log_volume import LogVolume
from modalflow.names import CANCELLED_BY, DEFAULT_PROFILE, FIRST_LOGS_MOUNT, LOGS_MOUNT, Names
from modalflow.protocol.messages import PROTOCOL, Deployment, Entry
from modalflow.protocol.plain_data import plain_data_only
from modalflow.protocol.snapshot import Snapshot
from modalflow.support.described import words_of

#: Seconds for one RPC, its retries and throttle waits included: the SDK itself would wait for ever.
RPC_TIMEOUT = 60.0

#: Handles kept for distinct (profile, resources); the SDK itself keeps 32 bindings per Function.
KEPT_HANDLES = 32

#: How a call of the SDK fails, where it is not a bug of ours.
FAILURES = (exception.Error, ModalflowError, OSError, asyncio.TimeoutError)

_T = TypeVar("_T")


async def bounded(call: Awaitable[_T], seconds: float = RPC_TIMEOUT) -> _T:
    """Await a call of the SDK within a time limit, told of rate limits, and without unpickling more than plain data."""
    # Not asyncio.wait_for: in Python 3.11 it loses a cancellation that arrives together with the answer.
    with plain_data_only(), told_of_limits():
        async with asyncio.timeout(seconds):
            return await call


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@dataclass(frozen=True)
class Backlog:
    """What Modal says of a Function: inputs that wait, and containers."""

    inputs: int
    containers: int


class Remote:
    """Modal's side of one executor. ``refused`` is called whenever Modal refuses the credentials."""

    def __init__(self, control_plane: ControlPlane, names: Names) -> None:
        scope = control_plane.scope()
        self.control_plane = control_plane
        self.refused: Callable[[], None] = lambda: None
        self._names = names
        self._ledger: Any = modal.Dict.from_name(names.ledger, create_if_missing=True, **scope)
        self._events: Any = modal.Queue.from_name(names.events, create_if_missing=True, **scope)
        self._executors: Any = modal.Dict.from_name(names.executors, create_if_missing=True, **scope)
        self.counted: Callable[[str, BaseException | None], None] = lambda rpc, error: None
        """Called with the name of each RPC that was made, and how it failed if it did."""
        self.own_volumes: Mapping[str, str] = {LOGS_MOUNT: names.logs}
        """What the worker needs in every container: path → name of the Volume."""
        self._handles: OrderedDict[tuple[str, Resources], Any] = OrderedDict()
        self.logs = LogVolume(control_plane, names)

    def heard(self, error: BaseException) -> None:
        """A failure of some call: credentials that are refused are read anew, whoever notices first."""
        if isinstance(error, exception.AuthError | CredentialsError):
            self.refused()

    @staticmethod
    def passes(error: BaseException) -> bool:
        """Whether a failure is likely to pass, so that what failed is worth keeping."""
        return isinstance(
            error, exception.AuthError | CredentialsError | exception.ConnectionError | asyncio.TimeoutError | OSError
        )

    async def backlog(self, profile: str, resources: Resources) -> Backlog:
        """What waits for a Function with these resources, and how many containers it has."""
        function = await self._ask("FunctionGet", self._function(profile, resources))
        stats = await self._ask("FunctionGetCurrentStats", function.get_current_stats.aio())
        return Backlog(int(stats.backlog), int(stats.num_total_runners))

    async def deployment(self) -> Deployment | None:
        """Make sure that a worker is deployed that this executor can talk to; return its record where there is one.

        Raises NotDeployedError or IncompatibleWorkerError.
        """
        await self._ask("FunctionGet", self._function(DEFAULT_PROFILE, Resources()))
        return await self.record()

    async def record(self) -> Deployment | None:
        """What is recorded as deployed; IncompatibleWorkerError where it cannot work with this executor."""
        deployment = await in_daemon_thread(self.logs.deployment)
        if deployment is not None and deployment.protocol != PROTOCOL:
            raise IncompatibleWorkerError(
                f"The worker deployed as Modal app {self._names.app!r} is modalflow {deployment.version} with "
                f"protocol {deployment.protocol}, but this executor has protocol {PROTOCOL}. Deploy the worker of this "
                f"modalflow: `{self._deploy()}`."
            )
        if deployment is not None and _minor(deployment.airflow_version) not in ("", _minor(AIRFLOW_VERSION)):
            raise IncompatibleWorkerError(
                f"The worker deployed as Modal app {self._names.app!r} has Airflow {deployment.airflow_version}, this "
                f"scheduler is Airflow {AIRFLOW_VERSION}; expected the same minor version, because they read each "
                f"other's data. Deploy the worker from here: `{self._deploy()}`."
            )
        if deployment is not None:
            self.own_volumes = deployment.volumes or {FIRST_LOGS_MOUNT: self._names.logs}
        return deployment

    async def _ask(
        self,
        rpc: str,
        call: Awaitable[_T],
        seconds: float = RPC_TIMEOUT,
        answers: tuple[type[BaseException], ...] = (),
    ) -> _T:
        """Await a call of the SDK that makes this RPC, and count it; one of ``answers`` is raised, but no failure."""
        try:
            answer = await bounded(call, seconds)
        except BaseException as error:
            self.counted(rpc, None if isinstance(error, answers) else error)
            self.heard(error)
            raise
        self.counted(rpc, None)
        return answer

    async def spawn(self, profile: str, resources: Resources, wire: dict[str, Any]) -> str:
        """Submit one input; return the function call id."""
        function: Any = self._handles.get((profile, resources))
        if function is None:
            function = await self._ask("FunctionGet", self._function(profile, resources))
        call = await self._ask("FunctionMap", function.spawn.aio(wire))
        return str(call.object_id)

    async def _function(self, profile: str, resources: Resources) -> Any:
        key = (profile, resources)
        if key not in self._handles:
            name = self._names.function(profile)
            function: Any = modal.Function.from_name(self._names.app, name, **self.control_plane.scope())
            try:
                await function.hydrate.aio()
            except exception.NotFoundError as error:
                where, said = in_environment(self.control_plane.environment, error), words_of(error).rstrip(".")
                raise NotDeployedError(
                    f"Modal has no Function {name!r} in app {self._names.app!r}{where}: {said}. Deploy it: "
                    f"`{self._deploy()}`."
                ) from error
            self._handles[key] = await self._bound(function, resources) if resources.options else function
            while len(self._handles) > KEPT_HANDLES:
                self._handles.popitem(last=False)
        return self._handles[key]

    async def _bound(self, function: Any, resources: Resources) -> Any:
        """The Function with a task's options; WorkloadRejectedError where it names what Modal does not have."""
        bound = function.with_options(**self._arguments(resources.plain()))
        if resources.unshared:
            bound = bound.with_concurrency(max_inputs=1)
        try:
            await bound.hydrate.aio()
        except exception.NotFoundError as error:
            where, said = in_environment(self.control_plane.environment, error), words_of(error).rstrip(".")
            raise WorkloadRejectedError(
                f"Modal does not have an object of this task{where} ({resources}): {said}. Create it, or "
                "change the task's executor_config."
            ) from error
        return bound

    def _arguments(self, options: dict[str, Any]) -> dict[str, Any]:
        """The keyword arguments of ``Function.with_options``."""
        scope = self.control_plane.scope()
        for name in ("cpu", "memory"):
            if isinstance(options.get(name), list):
                options[name] = tuple(options[name])
        if "secrets" in options:
            options["secrets"] = [modal.Secret.from_name(name, **scope) for name in options["secrets"]]
        if "volumes" in options:
            # Modal replaces what the Function has, so that what the worker needs itself has to be said again.
            wanted = {**options["volumes"], **self.own_volumes}
            options["volumes"] = {path: modal.Volume.from_name(name, **scope) for path, name in wanted.items()}
        return options

    def _deploy(self) -> str:
        environment = self.control_plane.environment
        return f"modalflow deploy --app {self._names.app}" + (f" --environment {environment}" if environment else "")

    def forget_handles(self) -> None:
        """Look Functions up anew: the app may have been stopped and deployed again under other ids."""
        self._handles.clear()

    async def entry(self, work_id: str) -> Entry | None:
        """The ledger's entry of a work id; MalformedMessageError for one that is no plain data, or no entry."""
        try:
            text = await self._ask("DictGet", self._ledger.get.aio(work_id))
        except exception.DeserializationError as error:
            raise MalformedMessageError(f"A ledger entry is no plain data: {error.__cause__ or error}") from error
        return None if text is None else Entry.from_json(text)

    async def claim(self, entry: Entry) -> bool:
        """Write an entry where there is none, so that no worker can begin this work id; False if one has."""
        return bool(
            await self._ask("DictUpdate", self._ledger.put.aio(entry.work_id, entry.to_json(), skip_if_exists=True))
        )

    async def forget(self, work_id: str) -> None:
        """Remove a work id from the ledger."""
        await self._ask("DictPop", self._ledger.pop.aio(work_id, None))

    async def take_entry(self, work_id: str) -> Entry | None:
        """Remove a work id from the ledger, and return what was there, in one step; None for what nobody can read."""
        with contextlib.suppress(MalformedMessageError, exception.DeserializationError):
            text = await self._ask("DictPop", self._ledger.pop.aio(work_id, None))
            return None if text is None else Entry.from_json(text)
        return None

    async def cancelled_by(self, work_id: str) -> str:
        """Who ended work by hand, as `modalflow cancel` left it in the ledger; empty where nobody did. Told once."""
        try:
            return str(await bounded(self._ledger.pop.aio(CANCELLED_BY + work_id, None)) or "")
        except exception.DeserializationError:
            return ""

    async def publish(self, partition: str, snapshot: str) -> None:
        """Write an executor's snapshot over the one before."""
        await self._ask("DictUpdate", self._executors.put.aio(partition, snapshot))

    async def withdraw(self, partition: str) -> None:
        """Remove an executor's snapshot."""
        await self._ask("DictPop", self._executors.pop.aio(partition, None))

    async def withdraw_older_than(self, time: float) -> None:
        """Remove what executors that were killed before then have left behind."""
        with plain_data_only():
            async with asyncio.timeout(RPC_TIMEOUT):
                told = [item async for item in self._executors.items.aio()]
        for partition, text in told:
            with contextlib.suppress(MalformedMessageError):
                if Snapshot.from_json(text).published_at < time:
                    await self.withdraw(partition)

    async def verdict(self, function_call_id: str) -> Verdict:
        """Modal's own word on a function call. What the call returned is not read: the ledger has it."""
        call: Any = modal.FunctionCall.from_id(function_call_id, client=self.control_plane.client)
        try:
            await self._ask("FunctionGetOutputs", call.get.aio(timeout=0), answers=ENDINGS)
        except ENDINGS as error:
            return verdict_of(error)
        return RETURNED

    async def cancel(self, function_call_id: str) -> None:
        """End a function call; other inputs of its container are not touched."""
        call: Any = modal.FunctionCall.from_id(function_call_id, client=self.control_plane.client)
        await self._ask("FunctionCallCancel", call.cancel.aio())

    async def next_events(self, partition: str, most: int, wait: float) -> list[Entry]:
        """Wait for events of a partition; an event that cannot be read is passed over (the ledger has the truth)."""
        try:
            texts = await self._ask(
                "QueueGet",
                self._events.get_many.aio(most, block=True, timeout=wait, partition=partition),
                wait + RPC_TIMEOUT,
                answers=(queue.Empty,),
            )
        except queue.Empty:
            return []
        entries = []
        for text in texts or ():
            try:
                entries.append(Entry.from_json(text))
            except MalformedMessageError:
                continue
        return entries
