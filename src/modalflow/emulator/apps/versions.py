"""The versions of an app: what each deployment consisted of, and the ways back to one.

Owns which versions there are, and the RPCs that make one out of an older one: rollback, rollover, promotion of a staged
deployment. What a function was in a version is functions.py's.

What is refused, and in which words, is inferred: the SDK's command line prints an error as it comes (modal/cli/app.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.rpc.dispatcher import Caller, Service
from modalflow.emulator.rpc.wire import message

if TYPE_CHECKING:
    from modalflow.emulator.apps.apps import App, Apps

DEPLOYED_BY = "local"

#: Versions of an app that can be called and gone back to; of older ones the history alone is left. Inferred: Modal
#: bounds how far back one can go by plan, and marks the rest of the history as ``rollback_allowed=False``.
KEPT_VERSIONS = 100


@dataclass(eq=False)
class Version:
    """What an app was as of one deployment. A staged one was never what calls without a version went to."""

    number: int
    function_ids: dict[str, str]
    class_ids: dict[str, str]
    tags: dict[str, str] = field(default_factory=dict)
    staged: bool = False
    deployed_at: float = field(default_factory=clock.now)
    client_version: str = ""
    deployment_tag: str = ""
    commit_info: api_pb2.CommitInfo | None = None
    copy_of: int = 0
    """The version that this one was made from, by a rollback, a rollover or a promotion."""

    def again(self, number: int, client_version: str) -> Version:
        """The same once more, as a later version."""
        return Version(
            number=number,
            function_ids=dict(self.function_ids),
            class_ids=dict(self.class_ids),
            tags=dict(self.tags),
            client_version=client_version,
            deployment_tag=self.deployment_tag,
            commit_info=self.commit_info,
            copy_of=self.number,
        )


def history(app: App) -> list[api_pb2.AppDeploymentHistory]:
    """The app's deployments, oldest first."""
    return [
        message(
            api_pb2.AppDeploymentHistory,
            app_id=app.app_id,
            version=version.number,
            client_version=version.client_version,
            deployed_at=version.deployed_at,
            deployed_by=DEPLOYED_BY,
            tag=version.deployment_tag,
            commit_info=version.commit_info,
            rollback_version=version.copy_of,
            rollback_allowed=version.number in app.kept_versions,
        )
        for version in app.versions.values()
    ]


class Versions(Service):
    """Answers the RPCs that deploy an earlier version of an app anew."""

    inferred: ClassVar[Mapping[str, str]] = {
        "AppRollback": (
            "going back is a new version with the old definitions, and so is promoting a staged one; "
            f"the newest {KEPT_VERSIONS} versions can be called and gone back to."
        ),
    }

    def __init__(self, apps: Apps) -> None:
        self._apps = apps

    async def AppRollback(self, request: api_pb2.AppRollbackRequest, caller: Caller) -> Message:
        """Deploy a version again; a negative number means the one before the current one (the CLI sends -1)."""
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

    async def AppRollover(self, request: api_pb2.AppRolloverRequest, caller: Caller) -> api_pb2.AppRolloverResponse:
        """Deploy the current version again, for the sake of new containers."""
        app = self._deployed(request.app_id)
        version = self._again(app, app.production, caller)
        return message(api_pb2.AppRolloverResponse, url=app.page, deployed_at=version.deployed_at)

    async def AppPromote(self, request: api_pb2.AppPromoteRequest, caller: Caller) -> api_pb2.AppPromoteResponse:
        """Make a staged version the one that calls go to."""
        app = self._deployed(request.app_id)
        found = app.versions.get(request.version)
        if found is not None and not found.staged:
            raise GRPCError(
                Status.FAILED_PRECONDITION,
                f"Version v{request.version} of app {app.app_id!r} is not a staged one; "
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
        version = kept_version(app, number).again(app.version + 1, caller.client_version)
        self._apps.release(app, version)
        return version


def kept_version(app: App, number: int) -> Version:
    """Return that version of the app; NOT_FOUND if there is none, or nothing but its line in the history."""
    found = app.kept_versions.get(number)
    if found is None:
        past = "is too old to be used" if number in app.versions else "does not exist"
        raise GRPCError(
            Status.NOT_FOUND,
            f"Version v{number} of app {app.name or app.app_id!r} {past}; `modal app history` lists its versions",
        )
    return found
