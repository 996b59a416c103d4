"""The ways back to an earlier version of an app: rollback, rollover, promotion of a staged deployment.

Owns these three RPCs. What a function was in a version is functions.py's matter.

The refusals and their words are inferred: the SDK's command line prints an error as it comes (modal/cli/app.py).
"""

from __future__ import annotations

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.app_lifecycle import AppLifecycle
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.version import KEPT_VERSIONS, Version
from modalflow.emulator.rpc.idempotency import CHANGE
from modalflow.emulator.rpc.service import Caller, Service, rpc
from modalflow.emulator.rpc.wire import message


class Rollbacks(Service):
    """The RPCs that deploy an existing version of an app again."""

    def __init__(self, apps: Apps, lifecycle: AppLifecycle) -> None:
        self._apps, self._lifecycle = apps, lifecycle

    @rpc(
        repeat=CHANGE,
        inferred="a rollback is a new version with the old definitions, and so is the promotion of a staged one; "
        f"the newest {KEPT_VERSIONS} versions can be called and gone back to.",
    )
    async def AppRollback(self, request: api_pb2.AppRollbackRequest, caller: Caller) -> Message:
        """Deploy a version again. A negative number, which the CLI sends, means the one before the current one."""
        app = self._deployed(request.app_id)
        number = request.version
        if number <= 0:
            earlier = [v.number for v in app.kept_versions.values() if v.number < app.production and not v.staged]
            if not earlier:
                raise GRPCError(
                    Status.FAILED_PRECONDITION, f"App {app.app_id!r} has no version before v{app.production}"
                )
            number = max(earlier)
        version = self._again(app, number, caller)
        # The oldest SDKs expect nothing in return.
        kind: type[Message] = getattr(api_pb2, "AppRollbackResponse", Empty)
        return message(kind, url=app.page, deployed_at=version.deployed_at)

    @rpc(repeat=CHANGE)
    async def AppRollover(self, request: api_pb2.AppRolloverRequest, caller: Caller) -> api_pb2.AppRolloverResponse:
        """Deploy the current version again, to get new containers."""
        app = self._deployed(request.app_id)
        version = self._again(app, app.production, caller)
        return message(api_pb2.AppRolloverResponse, url=app.page, deployed_at=version.deployed_at)

    @rpc(repeat=CHANGE)
    async def AppPromote(self, request: api_pb2.AppPromoteRequest, caller: Caller) -> api_pb2.AppPromoteResponse:
        """Send calls to a staged version."""
        app = self._deployed(request.app_id)
        found = app.versions.get(request.version)
        if found is not None and not found.staged:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Version v{request.version} of app {app.app_id!r} is not staged; "
                f"`modal app rollback` deploys an earlier version again",
            )
        version = self._again(app, request.version, caller)
        return message(api_pb2.AppPromoteResponse, url=app.page, deployed_at=version.deployed_at)

    def _deployed(self, app_id: str) -> App:
        app = self._apps.live(app_id)
        if not app.is_deployed:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {app_id!r} is not deployed")
        return app

    def _again(self, app: App, number: int, caller: Caller) -> Version:
        version = app.kept_version(number).again(app.version + 1, caller.client_version)
        self._lifecycle.release(app, version)
        return version
