"""The configuration of this Airflow host, collected once when an executor starts. Reads files, and asks no one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modalflow.airflow_compat.host_options import shared_secret
from modalflow.airflow_home.host_settings import host_settings
from modalflow.airflow_home.sealing import salt_of, seal
from modalflow.airflow_home.snapshot import HomeSnapshot, Settings, manifest_of

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostHome:
    """What containers get of an Airflow host."""

    settings: Settings
    secret: Settings = field(default_factory=dict, repr=False)
    """The settings that travel encrypted."""
    contents: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Files: path below the home → content."""
    executables: frozenset[str] = frozenset()
    salt: bytes = field(default=b"", repr=False)

    def snapshot(self, public_key: str) -> HomeSnapshot:
        """Return the snapshot for the containers of a deployment.

        Without a public key, the secret settings are left out.
        """
        sealed = seal(self.secret, public_key, self.salt) if self.secret and public_key else None
        return HomeSnapshot(self.settings, manifest_of(self.contents, self.executables), sealed)

    def left_out(self, public_key: str) -> list[str]:
        """Return the names of the secret settings that do not travel, because the deployment has no key."""
        if public_key:
            return []
        return [f"[{section}] {option}" for section, options in self.secret.items() for option in options]


def collect(conf: Any, team: str | None) -> HostHome:
    """Return what containers get of this Airflow host; ``team`` is the executor's team, if it has one.

    Logs the settings that cannot be read, and raises nothing for them: tasks have their defaults.
    """
    settings = host_settings(conf, team)
    for unreadable in settings.unreadable:
        log.warning("%s", unreadable)
    return HostHome(settings.plain, settings.secret, salt=salt_of(shared_secret()) if settings.secret else b"")
