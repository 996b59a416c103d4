"""An app: its state, its versions and the functions and classes of its current version.

Owns the state of one app. `Apps` knows which apps exist, and `AppLifecycle` changes them.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.version import KEPT_VERSIONS, Version
from modalflow.emulator.ids import new_id
from modalflow.emulator.rpc.wire import message
from modalflow.emulator.state.broadcast import Broadcast

CREATED_BY = "local"

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
    """The version that a call without a version goes to."""
    tags: dict[str, str] = field(default_factory=dict)
    function_ids: dict[str, str] = field(default_factory=dict)
    class_ids: dict[str, str] = field(default_factory=dict)
    versions: dict[int, Version] = field(default_factory=dict)
    last_heartbeat: float = field(default_factory=time.monotonic)
    over: Broadcast = field(default_factory=Broadcast)
    """Notified when the app is stopped."""

    @property
    def is_over(self) -> bool:
        return self.state in _OVER

    @property
    def is_deployed(self) -> bool:
        return self.state == api_pb2.APP_STATE_DEPLOYED

    @property
    def kept_versions(self) -> dict[int, Version]:
        """Return the versions that callers can name and roll back to."""
        return {number: v for number, v in self.versions.items() if number > self.version - KEPT_VERSIONS}

    def kept_version(self, number: int) -> Version:
        """Return that version; NOT_FOUND if it does not exist, or is kept in the history only."""
        found = self.kept_versions.get(number)
        if found is None:
            past = "is too old to be used" if number in self.versions else "does not exist"
            raise GRPCError(
                Status.NOT_FOUND,
                f"Version v{number} of app {self.name or self.app_id!r} {past}; `modal app history` lists its versions",
            )
        return found

    @property
    def history(self) -> list[api_pb2.AppDeploymentHistory]:
        """Return the deployments of the app, oldest first."""
        return [
            message(
                api_pb2.AppDeploymentHistory,
                app_id=self.app_id,
                version=version.number,
                client_version=version.client_version,
                deployed_at=version.deployed_at,
                deployed_by=CREATED_BY,
                tag=version.deployment_tag,
                commit_info=version.commit_info,
                rollback_version=version.copy_of,
                rollback_allowed=version.number in self.kept_versions,
            )
            for version in self.versions.values()
        ]

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
