"""What the executor asks of Modal: the only module of the executor that calls the SDK.

Every call has a time limit, reads plain data only, and raises modalflow's own errors or the SDK's.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import modal
from modal import exception

from modalflow.airflow_compat.versions import AIRFLOW_VERSION
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import HomeStore
from modalflow.budgets.live_rates import live_rates
from modalflow.bundles.files import VolumeFiles
from modalflow.control_plane import ControlPlane, in_environment
from modalflow.cost.rates import Rates
from modalflow.cost.usage import Record
from modalflow.errors import (
    CredentialsError,
    IncompatibleWorkerError,
    MalformedMessageError,
    ModalflowError,
    NotDeployedError,
    WorkloadRejectedError,
)
from modalflow.executor.modal_api.blocking import in_daemon_thread
from modalflow.executor.modal_api.call_status import RETURNED, CallStatus, call_status_of
from modalflow.executor.modal_api.plain_calls import RPC_TIMEOUT, bounded, listed
from modalflow.executor.submission.resources import Resources
from modalflow.function_calls.endings import ENDINGS
from modalflow.logs.log_volume import LogVolume
from modalflow.logs.usage_files import UsageFiles
from modalflow.names import CANCELLED_BY, DEFAULT_PROFILE, FIRST_LOGS_MOUNT, LOGS_MOUNT, Names
from modalflow.protocol.messages import PROTOCOL, Deployment, Entry
from modalflow.protocol.profile_holds import HOLDS, ProfileHolds
from modalflow.protocol.relay_report import NEWEST_KEY, RELAY
from modalflow.protocol.snapshot import Snapshot
from modalflow.protocol.spending_report import COUNTS_FOR, SPENDING, SpendingReport
from modalflow.relay import keys
from modalflow.support.described import words_of

#: Bytes a second of the slowest upload that is waited for.
SLOWEST_UPLOAD = 200_000
#: Seconds for one pass over the usage records.
USAGE_TIMEOUT = 120.0
#: Handles kept for distinct (profile, resources). The SDK itself keeps 32 bindings per Function.
KEPT_HANDLES = 32
#: What a call of the SDK raises if it fails for a reason outside of modalflow.
FAILURES = (exception.Error, ModalflowError, OSError, asyncio.TimeoutError)

_T = TypeVar("_T")


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])


@dataclass(frozen=True)
class Backlog:
    """What waits for a Function on Modal, and how many containers it has."""

    inputs: int
    containers: int


class ApiObserver(Protocol):
    """What a ModalApi notifies."""

    def on_rpc(self, rpc: str, error: BaseException | None) -> None:
        """Note an RPC that was made, and how it failed if it did."""

    def on_refused_credentials(self) -> None:
        """Note that Modal refused the credentials."""


class ModalApi:
    """Modal's API for one executor, over one client."""

    def __init__(self, control_plane: ControlPlane, names: Names, observer: ApiObserver) -> None:
        scope = control_plane.scope()
        self.control_plane = control_plane
        self._observer = observer
        self._names = names
        self._ledger: Any = modal.Dict.from_name(names.ledger, create_if_missing=True, **scope)
        self._events: Any = modal.Queue.from_name(names.events, create_if_missing=True, **scope)
        self._executors: Any = modal.Dict.from_name(names.executors, create_if_missing=True, **scope)
        self._relays: Any = modal.Dict.from_name(names.relays, create_if_missing=True, **scope)
        self.own_volumes: Mapping[str, str] = {LOGS_MOUNT: names.logs}
        """The Volumes that a worker needs in every container: path → name."""
        self._handles: OrderedDict[tuple[str, Resources], Any] = OrderedDict()
        self.logs = LogVolume(control_plane, names)
        self._homes = HomeStore(VolumeFiles(self.logs.volume))
        self._has_home_key = False

    def on_failure(self, error: BaseException) -> None:
        """Notify the observer if a failure means that Modal refused the credentials."""
        if isinstance(error, exception.AuthError | CredentialsError):
            self._observer.on_refused_credentials()

    @staticmethod
    def is_transient(error: BaseException) -> bool:
        """Return whether a failure is likely to pass, so that it is worth trying again."""
        return isinstance(
            error, exception.AuthError | CredentialsError | exception.ConnectionError | asyncio.TimeoutError | OSError
        )

    async def backlog(self, profile: str, resources: Resources) -> Backlog:
        """Return what waits for a Function with these resources, and how many containers it has."""
        function = await self._ask("FunctionGet", self._function(profile, resources))
        stats = await self._ask("FunctionGetCurrentStats", function.get_current_stats.aio())
        return Backlog(int(stats.backlog), int(stats.num_total_runners))

    async def deployment(self) -> Deployment | None:
        """Check that a worker is deployed that this executor can work with; return its record if there is one.

        Raises NotDeployedError or IncompatibleWorkerError.
        """
        await self._ask("FunctionGet", self._function(DEFAULT_PROFILE, Resources()))
        return await self.record()

    async def record(self) -> Deployment | None:
        """Return the record of the deployment; raise IncompatibleWorkerError if it cannot work with this executor."""
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
            self._has_home_key = bool(deployment.home_key)
        return deployment

    async def relay_key(self) -> str:
        """Return the newest relay key, for submissions. Raises NotDeployedError if the worker has none."""
        key = keys.fetch_public_key(self._names, **self.control_plane.scope())
        return str(await self._ask("FunctionMap", key, keys.PATIENCE + RPC_TIMEOUT))

    async def withdraw_relay(self, name: str) -> None:
        """Remove the reports of relays whose names begin with ``name``."""
        for key in map(str, await listed(self._relays.keys.aio())):
            if key.startswith(RELAY + name):
                await self._ask("DictPop", self._relays.pop.aio(key, None))

    async def newest_relay_key_id(self) -> str:
        """Return the id of the newest relay key, if it was ever rotated; a hint that anyone can have written."""
        found = await self._ask("DictGet", self._relays.get.aio(NEWEST_KEY))
        return found if isinstance(found, str) else ""

    async def _ask(
        self,
        rpc: str,
        call: Awaitable[_T],
        seconds: float = RPC_TIMEOUT,
        answers: tuple[type[BaseException], ...] = (),
        *,
        lenient: bool = False,
    ) -> _T:
        """Await a call of the SDK that makes this RPC, and report it. The exceptions in ``answers`` are no failures."""
        try:
            answer = await bounded(call, seconds, lenient=lenient)
        except BaseException as error:
            self._observer.on_rpc(rpc, None if isinstance(error, answers) else error)
            self.on_failure(error)
            raise
        self._observer.on_rpc(rpc, None)
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
                where, error_text = in_environment(self.control_plane.environment, error), words_of(error).rstrip(".")
                raise NotDeployedError(
                    f"Modal has no Function {name!r} in app {self._names.app!r}{where}: {error_text}. Deploy it: "
                    f"`{self._deploy()}`."
                ) from error
            self._handles[key] = await self._bound(function, resources) if resources.options else function
            while len(self._handles) > KEPT_HANDLES:
                self._handles.popitem(last=False)
        return self._handles[key]

    async def _bound(self, function: Any, resources: Resources) -> Any:
        """Return the Function with a task's options; raise WorkloadRejectedError if Modal lacks one of them."""
        bound = function.with_options(**self._arguments(resources.plain()))
        if resources.unshared:
            bound = bound.with_concurrency(max_inputs=1)
        try:
            await bound.hydrate.aio()
        except exception.NotFoundError as error:
            where, error_text = in_environment(self.control_plane.environment, error), words_of(error).rstrip(".")
            raise WorkloadRejectedError(
                f"Modal does not have an object of this task{where} ({resources}): {error_text}. Create it, or "
                "change the task's executor_config."
            ) from error
        return bound

    def _arguments(self, options: dict[str, Any]) -> dict[str, Any]:
        """Return the keyword arguments of ``Function.with_options``."""
        scope = self.control_plane.scope()
        for name in ("cpu", "memory"):
            if isinstance(options.get(name), list):
                options[name] = tuple(options[name])
        if "secrets" in options:
            # Modal replaces the Function's own Secrets, too.
            wanted_secrets = [*options["secrets"], *([self._names.home_key] if self._has_home_key else [])]
            options["secrets"] = [modal.Secret.from_name(name, **scope) for name in wanted_secrets]
        if "volumes" in options:
            # Modal replaces the Function's own Volumes, so those that the worker needs must be given again.
            wanted = {**options["volumes"], **self.own_volumes}
            options["volumes"] = {path: modal.Volume.from_name(name, **scope) for path, name in wanted.items()}
        return options

    def _deploy(self) -> str:
        environment = self.control_plane.environment
        return f"modalflow deploy --app {self._names.app}" + (f" --environment {environment}" if environment else "")

    def forget_handles(self) -> None:
        """Look up Functions again: the app may have been stopped and deployed again under other ids."""
        self._handles.clear()

    async def entry(self, work_id: str) -> Entry | None:
        """Return the ledger's entry of a work id; raise MalformedMessageError if it cannot be read."""
        try:
            text = await self._ask("DictGet", self._ledger.get.aio(work_id))
        except exception.DeserializationError as error:
            raise MalformedMessageError(f"A ledger entry is no plain data: {error.__cause__ or error}") from error
        return None if text is None else Entry.from_json(text)

    async def ledger(self) -> list[Entry]:
        """Return all readable entries of the ledger, in one reading."""
        entries = []
        for _, text in await listed(self._ledger.items.aio()):
            with contextlib.suppress(MalformedMessageError):
                entries.append(Entry.from_json(text))
        return entries

    async def claim(self, entry: Entry) -> bool:
        """Write an entry if there is none, so that no worker can begin this work id; return False if there is one."""
        put = self._ledger.put.aio(entry.work_id, entry.to_json(), skip_if_exists=True)
        return bool(await self._ask("DictUpdate", put))

    async def forget(self, work_id: str) -> None:
        """Remove a work id from the ledger."""
        await self._ask("DictPop", self._ledger.pop.aio(work_id, None))

    async def take_entry(self, work_id: str) -> Entry | None:
        """Remove a work id from the ledger and return its entry, in one step; None if there is no readable one."""
        with contextlib.suppress(MalformedMessageError, exception.DeserializationError):
            text = await self._ask("DictPop", self._ledger.pop.aio(work_id, None))
            return None if text is None else Entry.from_json(text)
        return None

    async def cancelled_by(self, work_id: str) -> str:
        """Return who ended work by hand, as `modalflow cancel` noted it in the ledger, and remove the note.

        Empty if no one did.
        """
        try:
            return str(await bounded(self._ledger.pop.aio(CANCELLED_BY + work_id, None)) or "")
        except exception.DeserializationError:
            return ""

    async def note(self, key: str) -> object:
        """Return what the ledger has under a key other than a work id; None if there is nothing that can be read."""
        try:
            return await self._ask("DictGet", self._ledger.get.aio(key))
        except exception.DeserializationError:
            return None

    async def put_note(self, key: str, text: str) -> None:
        """Write a text to the ledger under a key other than a work id."""
        await self._ask("DictUpdate", self._ledger.put.aio(key, text))

    async def read_usage(self, files: UsageFiles, keep: Callable[[list[Record]], object]) -> bool:
        """Pass the next usage records on, on another thread; return whether there are more to read at once."""
        return await bounded(in_daemon_thread(lambda: files.read(self.logs.volume, keep)), USAGE_TIMEOUT)

    async def publish(self, partition: str, snapshot: str) -> None:
        """Write an executor's snapshot over the previous one."""
        await self._ask("DictUpdate", self._executors.put.aio(partition, snapshot))

    async def profile_holds(self) -> ProfileHolds:
        """Return the paused profiles, from what `modalflow profile` has written."""
        with contextlib.suppress(exception.DeserializationError):
            return ProfileHolds.from_json(await self._ask("DictGet", self._executors.get.aio(HOLDS)))
        return ProfileHolds(problem="it is no plain data")

    async def spending_reports(self) -> list[SpendingReport]:
        """Return the executors' reports of their running costs. Reports of killed executors are removed."""
        reports = []
        for key in map(str, await listed(self._executors.keys.aio())):
            if key.startswith(SPENDING):
                with contextlib.suppress(MalformedMessageError):
                    text = await self._ask("DictGet", self._executors.get.aio(key), lenient=True)
                    report = SpendingReport.from_json(text)
                    reports.append(report)
                    if not report.counts(time.time() - COUNTS_FOR):
                        await self.withdraw(key)
        return reports

    def rates(self) -> Rates:
        """Return Modal's current rates, or the dated table if they cannot be had. Blocks."""
        return live_rates(self.control_plane.client)[0]

    async def publish_home(self, snapshot: HomeSnapshot, contents: Mapping[str, bytes], team: str) -> None:
        """Write a home snapshot to the logs Volume. Large files may take longer than an RPC."""
        seconds = RPC_TIMEOUT + sum(map(len, contents.values())) / SLOWEST_UPLOAD
        await bounded(in_daemon_thread(lambda: self._homes.publish(snapshot, contents, team)), seconds)

    async def prune_homes(self) -> None:
        """Remove old home snapshots from the logs Volume."""
        await bounded(in_daemon_thread(self._homes.prune))

    async def withdraw(self, partition: str) -> None:
        """Remove an executor's snapshot."""
        await self._ask("DictPop", self._executors.pop.aio(partition, None))

    async def withdraw_older_than(self, moment: float) -> None:
        """Remove the snapshots of executors that were killed before that moment."""
        for partition, text in await listed(self._executors.items.aio()):
            with contextlib.suppress(MalformedMessageError):
                if Snapshot.from_json(text).published_at < moment:
                    await self.withdraw(partition)

    async def call_status(self, function_call_id: str) -> CallStatus:
        """Return Modal's status of a function call. What the call returned is not read: the ledger has the outcome."""
        call: Any = modal.FunctionCall.from_id(function_call_id, client=self.control_plane.client)
        try:
            await self._ask("FunctionGetOutputs", call.get.aio(timeout=0), answers=ENDINGS)
        except ENDINGS as error:
            return call_status_of(error)
        return RETURNED

    async def cancel(self, function_call_id: str) -> None:
        """End a function call; the other inputs of its container go on."""
        call: Any = modal.FunctionCall.from_id(function_call_id, client=self.control_plane.client)
        await self._ask("FunctionCallCancel", call.cancel.aio())

    async def next_events(self, partition: str, most: int, wait: float) -> list[Entry]:
        """Wait for events of a partition and return them. Unreadable events are skipped: the ledger counts."""
        try:
            texts = await self._ask(
                "QueueGet",
                self._events.get_many.aio(most, block=True, timeout=wait, partition=partition),
                wait + RPC_TIMEOUT,
                answers=(queue.Empty,),
                lenient=True,
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
