"""The configuration of this Airflow host, collected once when an executor starts. Reads files, and asks no one."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.host_options import shared_secret
from modalflow.airflow_home.host_files import host_files
from modalflow.airflow_home.host_settings import host_settings
from modalflow.airflow_home.host_variables import host_variables
from modalflow.airflow_home.loopback import label
from modalflow.airflow_home.sealing import salt_of, seal
from modalflow.airflow_home.snapshot import HomeSnapshot, Settings, manifest_of
from modalflow.names import HOME_VARIABLES

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HostHome:
    """The part of an Airflow host's configuration for containers."""

    settings: Settings
    secret: Settings = field(default_factory=dict, repr=False)
    """Settings for encrypted transport."""
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
        """Return the names of the secret settings without a way to containers, for lack of a key."""
        if public_key:
            return []
        return [label(section, option) for section, options in self.secret.items() for option in options]


def collect(conf: Any, team: str | None) -> HostHome:
    """Return the part for containers of this host's configuration; ``team`` is the executor's team, if it has one.

    Logs unreadable settings and files, and raises nothing for them: Airflow on this host cannot read them
    either. Raises ConfigError if there are too many files.
    """
    settings = host_settings(conf, team)
    for unreadable in settings.unreadable:
        log.warning("%s", unreadable)
    # Airflow as a whole has one folder of plugins, and teams have none.
    contents, executables = _read(host_files(own_conf(), settings))
    variables = host_variables(os.environ)
    plain = _with_variables(settings.plain, variables.plain)
    secret = _with_variables(settings.secret, variables.secret)
    return HostHome(plain, secret, contents, executables, _salt() if secret else b"")


def _with_variables(settings: Settings, variables: Mapping[str, str]) -> Settings:
    return {**settings, HOME_VARIABLES: variables} if variables else settings


def _read(files: Mapping[str, Path]) -> tuple[dict[str, bytes], frozenset[str]]:
    """Return the contents of files, and the paths of executable ones."""
    contents, executables = {}, set()
    for path, file in files.items():
        try:
            contents[path] = file.read_bytes()
            if os.access(file, os.X_OK):
                executables.add(path)
        except OSError as error:
            log.warning("%s cannot be read, so tasks on Modal do not have it: %s", file, error.strerror)
    return contents, frozenset(executables)


def _salt() -> bytes:
    # Without a secret that schedulers share, each start gives another id.
    return salt_of(shared_secret() or secrets.token_hex())
