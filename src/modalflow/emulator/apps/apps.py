"""Apps: what is deployed or running under which name, and what became of it.

Owns an app's states, versions, tags and published layout. What its functions are is functions.py's; what runs is
pools.py's: both subscribe to hear that an app was published or stopped.

Apps outlive the control plane. An ephemeral one's client may be there still, and heartbeats: the app has as long as
after any other silence before it is stopped.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.versions import KEPT_VERSIONS, Version, history
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.dispatcher import Caller, Service
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.broadcast import Changes
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.records import Record

CREATED_BY = "local"

#: The SDK heartbeats a running app every 15 seconds (``heartbeat_interval`` in modal/config.py). An ephemeral app whose
#: client was silent for this long (inferred) is stopped, so that a client that was killed leaves no containers behind.
CLIENT_LOST_AFTER = 90.0

#: Seconds for which a stopped app is known: as long as the results of its calls. Inferred: `modal app list` speaks of
#: "recently stopped" apps and does not say how recently.
STOPPED_KEPT = 7 * 24 * 3600.0

_OVER = (api_pb2.APP_STATE_STOPPING, api_pb2.APP_STATE_STOPPED)


@dataclass(eq=False)
class App:
    """One app. ``name`` is empty unless it is, or was, deployed."""

    environment: str
    description: str
    state: int
    name: str = ""
    app_id: str = field(default_factory=lambda: new_id("ap"))
    created_at: float = field(default_factory=clock.now)
    deployed_at: float = 0.0
    stopped_at: float = 0.0
    stopped_by: str = ""
    version: int = 0
    """The newest version's number, staged ones included."""
    production: int = 0
    """The version that calls go to which name none."""
    tags: dict[str, str] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    last_heard: float = field(default_factory=time.monotonic)
    over: Changes = field(default_factory=Changes)

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    @property
    def is_deployed(self) -> bool:
        return self.state == api_pb2.APP_STATE_DEPLOYED

    @property
    def kept_versions(self) -> dict[int, Version]:
        """The versions that can be called by number and gone back to."""
        return {number: v for number, v in self.versions.items() if number > self.version - KEPT_VERSIONS}

    @property
    def page(self) -> str:
        return f"https://modal.com/id/{self.app_id}"

    @property
    def lifecycle(self) -> api_pb2.AppLifecycle:
        return message(
            api_pb2.AppLifecycle,
            app_state=self.state,
            created_at=self.created_at,
            created_by=CREATED_BY,
            deployed_at=self.deployed_at,
            deployed_by=CREATED_BY if self.deployed_at else "",
            version=self.production,
            stopped_at=self.stopped_at,
            stopped_by=self.stopped_by,
        )

    @property
    def handle_metadata(self) -> Message | None:
        # SDKs before 1.6 know no such message.
        kind: type[Message] | None = getattr(api_pb2, "AppHandleMetadata", None)
        if kind is None:
            return None
        return message(
            kind,
            description=self.description,
            app_id=self.app_id,
            environment_name=self.environment,
            lifecycle=self.lifecycle,
        )


_RECORD = Record(App, without=("last_heard", "over", "versions"))
_RECORD_OF_VERSION = Record(Version)


class Apps(Service):
    """Answers the App RPCs that are neither about logs nor about layouts of functions."""

    inferred: ClassVar[Mapping[str, str]] = {
        "AppHeartbeat": (
            "an ephemeral app whose client was silent for 90 s is stopped; after a restart of the control plane "
            "they begin anew."
        ),
        "AppList": 'how long a stopped app is still listed: Modal says "recently stopped".',
    }

    def __init__(self, environments: Environments, journal: Journal | None = None) -> None:
        self._environments = environments
        journal = journal or Journal()
        self._records = journal.table("apps", _RECORD.encode)
        self._versions = journal.table("app_versions", _RECORD_OF_VERSION.encode)
        self._by_id: dict[str, App] = {app_id: _RECORD.decode(body) for _, app_id, body in self._records.load()}
        for app_id, number, body in self._versions.load():
            self._by_id[app_id].versions[int(number)] = _RECORD_OF_VERSION.decode(body)
        self.on_publish: list[Callable[[App, set[str]], None]] = []
        """Called with the app and the ids that its layout no longer has, after each publication."""
        self.on_version: list[Callable[[App, Version], None]] = []
        """Called with the app and a version that is new, before that is published, or staged."""
        self.on_stop: list[Callable[[App, str], None]] = []
        """Called with the app and the reason, once."""
        self.on_forget: list[Callable[[App], None]] = []
        """Called with an app that was stopped so long ago that nobody can ask about it any more."""
        self.count_containers: Callable[[App], int] = lambda _app: 0
        self.has_calls: Callable[[App], bool] = lambda _app: False
        environments.subscribe(self._environment_changed)

    def get(self, app_id: str) -> App:
        app = self._by_id.get(app_id)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App {app_id!r} not found")
        return app

    def live(self, app_id: str) -> App:
        """Return an app that can still change; FAILED_PRECONDITION for one that was stopped."""
        app = self.get(app_id)
        if app.is_over:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {app_id!r} is stopped")
        return app

    def deployed(self, name: str, environment_name: str) -> App:
        """Return the app of that name; NOT_FOUND unless one is deployed, or made by ``App.lookup``."""
        environment = self._environments.resolve(environment_name)
        app = self._named(name, environment)
        if app is None or app.is_over:
            raise GRPCError(Status.NOT_FOUND, f"No app {name!r} is deployed in environment {environment!r}")
        return app

    def __iter__(self) -> Iterator[App]:
        return iter(self._by_id.values())

    def stop(self, app: App, reason: str, stopped_by: str = "") -> None:
        if app.is_over:
            return
        app.state = api_pb2.APP_STATE_STOPPED
        app.stopped_at = clock.now()
        app.stopped_by = stopped_by
        self._save(app)
        for listener in self.on_stop:
            listener(app, reason)
        app.over.notify()

    def stop_abandoned(self) -> None:
        """Stop the ephemeral apps whose client went away without a word."""
        limit = time.monotonic() - CLIENT_LOST_AFTER
        for app in list(self._by_id.values()):
            if app.state == api_pb2.APP_STATE_EPHEMERAL and app.last_heard < limit:
                reason = f"its client sent no heartbeat for {CLIENT_LOST_AFTER:g} s"
                self.stop(app, f"App {app.app_id} was stopped: {reason}")

    def stop_finished(self) -> None:
        """Stop detached apps that have neither a client nor calls any more: ``modal run --detach`` waits for that."""
        for app in list(self._by_id.values()):
            if app.state == api_pb2.APP_STATE_DETACHED_DISCONNECTED and not self.has_calls(app):
                self.stop(app, f"App {app.app_id} was stopped: it was detached and its last call ended")

    def forget_stopped(self) -> None:
        """Forget the apps that were stopped too long ago to be asked about."""
        limit = clock.now() - STOPPED_KEPT
        for app in [a for a in self._by_id.values() if a.is_over and a.stopped_at < limit]:
            del self._by_id[app.app_id]
            self._records.discard("", app.app_id)
            self._versions.discard_all(app.app_id)
            for listener in self.on_forget:
                listener(app)

    def _named(self, name: str, environment: str) -> App | None:
        """The newest app of that name, a live one before a stopped one."""
        found = [a for a in self._by_id.values() if a.name == name and a.environment == environment]
        return max(found, key=lambda a: (not a.is_over, a.created_at), default=None)

    def _environment_changed(self, old: str, new: str | None) -> None:
        for app in [a for a in self._by_id.values() if a.environment == old]:
            if new is None:
                self.stop(app, f"App {app.app_id} was stopped: its environment {old!r} was deleted", CREATED_BY)
            else:
                app.environment = new
                self._save(app)

    def _add(self, app: App) -> App:
        self._by_id[app.app_id] = app
        self._save(app)
        return app

    def _save(self, app: App) -> None:
        """The app changed: what it is now outlives the control plane."""
        self._records.put("", app.app_id, app)

    async def AppCreate(self, request: api_pb2.AppCreateRequest, caller: Caller) -> api_pb2.AppCreateResponse:
        app = self._add(
            App(
                environment=self._environments.resolve(request.environment_name),
                description=request.description,
                state=request.app_state or api_pb2.APP_STATE_EPHEMERAL,
                tags=dict(request.tags),
            )
        )
        return message(api_pb2.AppCreateResponse, app_id=app.app_id, app_page_url=app.page, app_logs_url=app.page)

    async def AppGetOrCreate(
        self, request: api_pb2.AppGetOrCreateRequest, caller: Caller
    ) -> api_pb2.AppGetOrCreateResponse:
        app = self._by_id.get(request.app_name) or self._looked_up(request)
        return message(api_pb2.AppGetOrCreateResponse, app_id=app.app_id, handle_metadata=app.handle_metadata)

    def _looked_up(self, request: api_pb2.AppGetOrCreateRequest) -> App:
        environment = self._environments.resolve(request.environment_name)
        app = self._named(request.app_name, environment)
        if app is not None and not app.is_over:
            return app
        if not request.object_creation_type:
            raise GRPCError(Status.NOT_FOUND, f"App {request.app_name!r} not found in environment {environment!r}")
        made = App(
            environment=environment,
            description=request.app_name,
            name=request.app_name,
            state=api_pb2.APP_STATE_DEPLOYED,
            deployed_at=clock.now(),
        )
        return self._add(made)

    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest, caller: Caller
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self._environments.resolve(request.environment_name)
        answer = message(api_pb2.AppGetByDeploymentNameResponse, environment_name=environment)
        app = self._named(request.name, environment)
        if app is not None:
            if app.is_over:
                answer.previous_app_id = app.app_id
            else:
                answer.app_id = app.app_id
            answer.lifecycle.CopyFrom(app.lifecycle)
        return answer

    async def AppPublish(self, request: api_pb2.AppPublishRequest, caller: Caller) -> api_pb2.AppPublishResponse:
        if optional(request, "rollback_version"):
            raise GRPCError(
                Status.UNIMPLEMENTED, "The local control plane rolls back by AppRollback, not by AppPublish"
            )
        app = self.live(request.app_id)
        version = Version(
            number=app.version + 1,
            function_ids=dict(request.function_ids),
            class_ids=dict(request.class_ids),
            tags=dict(request.tags),
            staged=bool(optional(request, "staged")),
            client_version=caller.client_version,
            deployment_tag=request.deployment_tag,
            commit_info=request.commit_info,
        )
        # It refuses unknown ids: before anything of the app, or of the one that has its name, is changed.
        self._announce(app, version)
        if request.name:
            # A name has one live app: deploying another one under it takes the name over.
            other = self._named(request.name, app.environment)
            if other is not None and other is not app and not other.is_over:
                self.stop(other, f"App {other.app_id} was stopped: {app.app_id} was deployed under its name")
            app.name = request.name
            app.description = request.name
        app.state = request.app_state
        self._adopt(app, version)
        return message(api_pb2.AppPublishResponse, url=app.page, deployed_at=version.deployed_at)

    def release(self, app: App, version: Version) -> None:
        """Add a version to the app's and, unless it is staged, make it the one that calls go to."""
        self._announce(app, version)
        self._adopt(app, version)

    def _announce(self, app: App, version: Version) -> None:
        for keep in self.on_version:
            keep(app, version)

    def _adopt(self, app: App, version: Version) -> None:
        app.version = version.number
        app.versions[version.number] = version
        self._versions.put(app.app_id, str(version.number), version)
        self._save(app)
        if version.staged:
            return
        removed = set(app.function_ids.values()) - set(version.function_ids.values())
        app.production = version.number
        app.function_ids, app.class_ids = dict(version.function_ids), dict(version.class_ids)
        app.tags = dict(version.tags)
        app.deployed_at = version.deployed_at
        self._save(app)
        for listener in self.on_publish:
            listener(app, removed)

    async def AppStop(self, request: api_pb2.AppStopRequest, caller: Caller) -> Empty:
        self.stop(self.get(request.app_id), f"App {request.app_id} was stopped by a user", CREATED_BY)
        return Empty()

    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest, caller: Caller) -> Empty:
        self.live(request.app_id).last_heard = time.monotonic()
        return Empty()

    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest, caller: Caller) -> Empty:
        app = self.get(request.app_id)
        if app.state == api_pb2.APP_STATE_DETACHED:
            app.state = api_pb2.APP_STATE_DETACHED_DISCONNECTED
            self._save(app)
            self.stop_finished()
        elif app.state in (api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_INITIALIZING):
            self.stop(app, f"App {app.app_id} was stopped: its client disconnected")
        return Empty()

    async def AppList(self, request: api_pb2.AppListRequest, caller: Caller) -> api_pb2.AppListResponse:
        environment = self._environments.resolve(request.environment_name)
        return api_pb2.AppListResponse(
            apps=[
                message(
                    api_pb2.AppListResponse.AppListItem,
                    app_id=app.app_id,
                    description=app.description,
                    state=app.state,
                    created_at=app.created_at,
                    stopped_at=app.stopped_at,
                    n_running_tasks=self.count_containers(app),
                    name=app.name,
                    metadata=app.handle_metadata,
                )
                for app in sorted(self._by_id.values(), key=lambda a: a.created_at, reverse=True)
                if app.environment == environment
            ]
        )

    async def AppGetLifecycle(
        self, request: api_pb2.AppGetLifecycleRequest, caller: Caller
    ) -> api_pb2.AppGetLifecycleResponse:
        return api_pb2.AppGetLifecycleResponse(lifecycle=self.get(request.app_id).lifecycle)

    async def AppDeploymentHistory(
        self, request: api_pb2.AppDeploymentHistoryRequest, caller: Caller
    ) -> api_pb2.AppDeploymentHistoryResponse:
        app = self.get(request.app_id)
        return message(
            api_pb2.AppDeploymentHistoryResponse,
            app_deployment_histories=history(app),
            production_app_version=app.production,
        )

    async def AppSetTags(self, request: api_pb2.AppSetTagsRequest, caller: Caller) -> Empty:
        app = self.get(request.app_id)
        app.tags = dict(request.tags)
        self._save(app)
        return Empty()

    async def AppGetTags(self, request: api_pb2.AppGetTagsRequest, caller: Caller) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self.get(request.app_id).tags)
