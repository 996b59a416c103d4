"""The apps of one control plane: found by id, name or deployment, and their records.

Owns which apps exist and what of them is on disk. It announces nothing: `AppLifecycle` changes apps and everything that
depends on them.
"""

from __future__ import annotations

from collections.abc import Iterator

from grpclib import GRPCError, Status

from modalflow.emulator.apps.app import App
from modalflow.emulator.apps.version import Version
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from modalflow.emulator.state.records import Record

_RECORD = Record(App, without=("last_heartbeat", "over", "versions"))
_RECORD_OF_VERSION = Record(Version)


class Apps:
    """All apps, running, deployed or stopped lately."""

    def __init__(self, environments: Environments, journal: Journal) -> None:
        self._environments = environments
        self._records = journal.table("apps", _RECORD.encode)
        self._versions = journal.table("app_versions", _RECORD_OF_VERSION.encode)
        self._by_id: dict[str, App] = {app_id: _RECORD.decode(body) for _, app_id, body in self._records.load()}
        for app_id, number, body in self._versions.load():
            self._by_id[app_id].versions[int(number)] = _RECORD_OF_VERSION.decode(body)

    def __iter__(self) -> Iterator[App]:
        """Yield every app, also while apps are added and removed."""
        return iter(list(self._by_id.values()))

    def find(self, app_id: str) -> App | None:
        return self._by_id.get(app_id)

    def get(self, app_id: str) -> App:
        """Return the app of that id; NOT_FOUND for an unknown one."""
        app = self._by_id.get(app_id)
        if app is None:
            raise GRPCError(Status.NOT_FOUND, f"App {app_id!r} not found")
        return app

    def live(self, app_id: str) -> App:
        """Return an app that can still change; FAILED_PRECONDITION for a stopped one."""
        app = self.get(app_id)
        if app.is_over:
            raise GRPCError(Status.FAILED_PRECONDITION, f"App {app_id!r} is stopped")
        return app

    def named(self, name: str, environment: str) -> App | None:
        """Return the newest app of that name, a live one before a stopped one."""
        found = [a for a in self._by_id.values() if a.name == name and a.environment == environment]
        return max(found, key=lambda a: (not a.is_over, a.created_at), default=None)

    def deployed(self, name: str, environment_name: str) -> App:
        """Return the app of that name; NOT_FOUND unless one is deployed, or made by ``App.lookup``."""
        environment = self._environments.resolve(environment_name)
        app = self.named(name, environment)
        if app is None or app.is_over:
            raise GRPCError(Status.NOT_FOUND, f"No app {name!r} is deployed in environment {environment!r}")
        return app

    def of_environment(self, environment: str) -> list[App]:
        """Return the apps of an environment, oldest first."""
        return [app for app in self._by_id.values() if app.environment == environment]

    def add(self, app: App) -> App:
        self._by_id[app.app_id] = app
        self.save(app)
        return app

    def save(self, app: App) -> None:
        """Record the app as it is now."""
        self._records.put("", app.app_id, app)

    def add_version(self, app: App, version: Version) -> None:
        """Record the app's newest version."""
        app.version = version.number
        app.versions[version.number] = version
        self._versions.put(app.app_id, str(version.number), version)
        self.save(app)

    def remove(self, app: App) -> None:
        del self._by_id[app.app_id]
        self._records.discard("", app.app_id)
        self._versions.discard_all(app.app_id)
