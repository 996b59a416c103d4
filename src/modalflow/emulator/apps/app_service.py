"""The App RPCs, except those about logs, layouts and the ways back to an earlier version.

Owns the translation between the protocol and `AppLifecycle`.
"""

from __future__ import annotations

import time

from google.protobuf.empty_pb2 import Empty
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import CREATED_BY, App
from modalflow.emulator.apps.app_lifecycle import AppLifecycle
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.version import Version
from modalflow.emulator.containers.containers import Containers
from modalflow.emulator.definitions.definition_check import refuse_unsupported, warnings_of
from modalflow.emulator.rpc.idempotency import CHANGE, HEARTBEAT, READ
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message, optional
from modalflow.emulator.services.environments import Environments


class AppService(Service):
    """The App RPCs."""

    def __init__(self, environments: Environments, apps: Apps, lifecycle: AppLifecycle, containers: Containers) -> None:
        self._environments, self._apps = environments, apps
        self._lifecycle, self._containers = lifecycle, containers

    @rpc(repeat=CHANGE)
    async def AppCreate(self, request: api_pb2.AppCreateRequest, caller: Caller) -> api_pb2.AppCreateResponse:
        app = self._apps.add(
            App(
                environment=self._environments.resolve(request.environment_name),
                description=request.description,
                state=request.app_state or api_pb2.APP_STATE_EPHEMERAL,
                tags=dict(request.tags),
            )
        )
        return message(api_pb2.AppCreateResponse, app_id=app.app_id, app_page_url=app.page, app_logs_url=app.page)

    @rpc(repeat=CHANGE)
    async def AppGetOrCreate(
        self, request: api_pb2.AppGetOrCreateRequest, caller: Caller
    ) -> api_pb2.AppGetOrCreateResponse:
        app = self._apps.find(request.app_name) or self._looked_up(request)
        return message(api_pb2.AppGetOrCreateResponse, app_id=app.app_id, handle_metadata=app.handle_metadata)

    def _looked_up(self, request: api_pb2.AppGetOrCreateRequest) -> App:
        environment = self._environments.resolve(request.environment_name)
        app = self._apps.named(request.app_name, environment)
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
        return self._apps.add(made)

    @rpc(repeat=READ)
    async def AppGetByDeploymentName(
        self, request: api_pb2.AppGetByDeploymentNameRequest, caller: Caller
    ) -> api_pb2.AppGetByDeploymentNameResponse:
        environment = self._environments.resolve(request.environment_name)
        answer = message(api_pb2.AppGetByDeploymentNameResponse, environment_name=environment)
        app = self._apps.named(request.name, environment)
        if app is not None:
            if app.is_over:
                answer.previous_app_id = app.app_id
            else:
                answer.app_id = app.app_id
            answer.lifecycle.CopyFrom(app.lifecycle)
        return answer

    @rpc(repeat=CHANGE)
    async def AppPublish(self, request: api_pb2.AppPublishRequest, caller: Caller) -> api_pb2.AppPublishResponse:
        refuse_unsupported(request)
        app = self._apps.live(request.app_id)
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
        # Unknown ids are refused before the app, or the one that has its name, changes.
        self._lifecycle.check(app, version)
        if request.name:
            # A name has one live app: deploying another one under it takes the name over.
            other = self._apps.named(request.name, app.environment)
            if other is not None and other is not app and not other.is_over:
                self._lifecycle.stop(other, f"App {other.app_id} was stopped: {app.app_id} was deployed under its name")
            app.name = request.name
            app.description = request.name
        app.state = request.app_state
        self._lifecycle.publish(app, version)
        return message(
            api_pb2.AppPublishResponse,
            url=app.page,
            deployed_at=version.deployed_at,
            server_warnings=warnings_of("The app", request),
        )

    @rpc(repeat=CHANGE, needs_room=False)
    async def AppStop(self, request: api_pb2.AppStopRequest, caller: Caller) -> Empty:
        self._lifecycle.stop(self._apps.get(request.app_id), f"App {request.app_id} was stopped by a user", CREATED_BY)
        return Empty()

    @rpc(
        repeat=HEARTBEAT,
        inferred=(
            "an ephemeral app is stopped after 90 s without a heartbeat of its client; a restart of the control plane "
            "begins a new 90 s."
        ),
    )
    async def AppHeartbeat(self, request: api_pb2.AppHeartbeatRequest, caller: Caller) -> Empty:
        self._apps.live(request.app_id).last_heartbeat = time.monotonic()
        return Empty()

    @rpc(repeat=CHANGE, needs_room=False)
    async def AppClientDisconnect(self, request: api_pb2.AppClientDisconnectRequest, caller: Caller) -> Empty:
        self._lifecycle.disconnect(self._apps.get(request.app_id))
        return Empty()

    @rpc(repeat=READ, inferred='how long a stopped app is still listed: Modal says "recently stopped".')
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
                    n_running_tasks=self._containers.count(app),
                    name=app.name,
                    metadata=app.handle_metadata,
                )
                for app in sorted(self._apps.of_environment(environment), key=lambda a: a.created_at, reverse=True)
            ]
        )

    @rpc(repeat=READ)
    async def AppGetLifecycle(
        self, request: api_pb2.AppGetLifecycleRequest, caller: Caller
    ) -> api_pb2.AppGetLifecycleResponse:
        return api_pb2.AppGetLifecycleResponse(lifecycle=self._apps.get(request.app_id).lifecycle)

    @rpc(repeat=READ)
    async def AppDeploymentHistory(
        self, request: api_pb2.AppDeploymentHistoryRequest, caller: Caller
    ) -> api_pb2.AppDeploymentHistoryResponse:
        app = self._apps.get(request.app_id)
        return message(
            api_pb2.AppDeploymentHistoryResponse,
            app_deployment_histories=app.history,
            production_app_version=app.production,
        )

    @rpc(repeat=CHANGE)
    async def AppSetTags(self, request: api_pb2.AppSetTagsRequest, caller: Caller) -> Empty:
        app = self._apps.get(request.app_id)
        app.tags = dict(request.tags)
        self._apps.save(app)
        return Empty()

    @rpc(repeat=READ)
    async def AppGetTags(self, request: api_pb2.AppGetTagsRequest, caller: Caller) -> api_pb2.AppGetTagsResponse:
        return api_pb2.AppGetTagsResponse(tags=self._apps.get(request.app_id).tags)
