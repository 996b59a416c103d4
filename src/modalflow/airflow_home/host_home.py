"""The configuration of this Airflow host, collected once when an executor starts. Reads files, and asks no one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modalflow.airflow_home.sealing import seal
from modalflow.airflow_home.snapshot import HomeSnapshot, Settings, manifest_of


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


#: Sections that belong to the host alone, and settings that no container may have.
_HOST_SECTIONS = ("database", "api", "api_auth", "scheduler", "dag_processor", "triggerer", "logging", "modal_executor")
_HOST_OPTIONS = (("core", "fernet_key"), ("core", "executor"), ("core", "dags_folder"), ("core", "hostname_callable"))


def collect(conf: Any, team: str | None) -> HostHome:
    """Return what containers get of this Airflow host; ``team`` is the executor's team, if it has one."""
    listed: Any = conf.as_dict(display_source=True, display_sensitive=True, raw=False)
    settings = {
        section: {
            option: str(value)
            for option, (value, source) in options.items()
            if source != "default" and (section, option) not in _HOST_OPTIONS
        }
        for section, options in listed.items()
        if section not in _HOST_SECTIONS
    }
    return HostHome({section: options for section, options in settings.items() if options})
