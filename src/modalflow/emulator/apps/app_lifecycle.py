"""How an app changes, and everything that has to change with it: functions, containers, logs.

Owns publication and the end of apps, in the order in which the other parts are to see them.

Apps outlive the control plane. After a restart, the client of an ephemeral app may still be there and send heartbeats:
the app gets the same time as after any other silence before it is stopped.
"""

from __future__ import annotations

import time

from modal_proto import api_pb2

from modalflow.emulator import clock
from modalflow.emulator.apps.app import CREATED_BY, App
from modalflow.emulator.apps.apps import Apps
from modalflow.emulator.apps.version import Version
from modalflow.emulator.calls.calls import Calls
from modalflow.emulator.containers.pools import Pools
from modalflow.emulator.functions.functions import Functions
from modalflow.emulator.logs.logs import Logs
from modalflow.emulator.services.environments import Environments

#: The SDK heartbeats a running app every 15 seconds (``heartbeat_interval`` in modal/config.py). An ephemeral app whose
#: client was silent for this long (inferred) is stopped, so that a killed client leaves no containers behind.
CLIENT_LOST_AFTER = 90.0

#: Seconds for which a stopped app is known: as long as the results of its calls. Inferred: `modal app list` speaks of
#: "recently stopped" apps and does not say how recently.
STOPPED_KEPT = 7 * 24 * 3600.0


class AppLifecycle:
    """Publishes, stops and forgets apps."""

    def __init__(
        self, environments: Environments, apps: Apps, functions: Functions, calls: Calls, pools: Pools, logs: Logs
    ) -> None:
        self._apps, self._functions, self._calls, self._pools, self._logs = apps, functions, calls, pools, logs
        environments.subscribe(self)

    def release(self, app: App, version: Version) -> None:
        """Add a version to the app and, unless it is staged, send calls to it."""
        self.check(app, version)
        self.publish(app, version)

    def check(self, app: App, version: Version) -> None:
        """Keep the functions of a version; NOT_FOUND for an unknown id. Nothing of the app itself changes."""
        self._functions.keep(version)

    def publish(self, app: App, version: Version) -> None:
        """Make a checked version the newest one and, unless it is staged, send calls to it."""
        self._apps.add_version(app, version)
        if version.staged:
            return
        removed = set(app.function_ids.values()) - set(version.function_ids.values())
        app.production = version.number
        app.function_ids, app.class_ids = dict(version.function_ids), dict(version.class_ids)
        app.tags = dict(version.tags)
        app.deployed_at = version.deployed_at
        self._apps.save(app)
        for function in self._functions.publish(app, removed):
            self._pools.published(function)

    def stop(self, app: App, reason: str, stopped_by: str = "") -> None:
        """Stop the app with its containers; a stopped one stays as it is."""
        if app.is_over:
            return
        app.state = api_pb2.APP_STATE_STOPPED
        app.stopped_at = clock.now()
        app.stopped_by = stopped_by
        self._apps.save(app)
        self._pools.stop_app(app, reason)
        app.over.notify()

    def disconnect(self, app: App) -> None:
        """Note that the app's client ended: an ephemeral app is stopped, a detached one after its last call."""
        if app.state == api_pb2.APP_STATE_DETACHED:
            app.state = api_pb2.APP_STATE_DETACHED_DISCONNECTED
            self._apps.save(app)
            self.stop_finished()
        elif app.state in (api_pb2.APP_STATE_EPHEMERAL, api_pb2.APP_STATE_INITIALIZING):
            self.stop(app, f"App {app.app_id} was stopped: its client disconnected")

    def stop_abandoned(self) -> None:
        """Stop the ephemeral apps whose client sends no heartbeats any more."""
        limit = time.monotonic() - CLIENT_LOST_AFTER
        for app in self._apps:
            if app.state == api_pb2.APP_STATE_EPHEMERAL and app.last_heartbeat < limit:
                reason = f"its client sent no heartbeat for {CLIENT_LOST_AFTER:g} s"
                self.stop(app, f"App {app.app_id} was stopped: {reason}")

    def stop_finished(self) -> None:
        """Stop detached apps that have neither a client nor calls any more: ``modal run --detach`` waits for that."""
        for app in self._apps:
            if app.state == api_pb2.APP_STATE_DETACHED_DISCONNECTED and not self._calls.has_unfinished(app):
                self.stop(app, f"App {app.app_id} was stopped: it was detached and its last call ended")

    def forget_stopped(self) -> None:
        """Forget the apps that were stopped too long ago to be asked about."""
        limit = clock.now() - STOPPED_KEPT
        for app in [a for a in self._apps if a.is_over and a.stopped_at < limit]:
            self._apps.remove(app)
            self._functions.forget_app(app)
            self._logs.forget_app(app)
            self._pools.forget_app(app)

    def environment_changed(self, old: str, new: str | None) -> None:
        """Rename the environment of its apps, or stop them if it was deleted."""
        for app in self._apps.of_environment(old):
            if new is None:
                self.stop(app, f"App {app.app_id} was stopped: its environment {old!r} was deleted", CREATED_BY)
            else:
                app.environment = new
                self._apps.save(app)
