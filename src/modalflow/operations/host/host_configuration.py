"""What containers get of this machine's Airflow, as a scheduler that started here now would publish it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import modal

from modalflow.airflow_home.comparison import HostOption
from modalflow.airflow_home.host_home import HostHome, collect
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import HomeStore, snapshot_of
from modalflow.bundles.files import VolumeFiles
from modalflow.errors import HomeError
from modalflow.operations.site import Site


@dataclass(frozen=True)
class HostConfiguration:
    """The options that are set here, and the home that containers get."""

    options: Sequence[HostOption]
    home: HostHome = field(repr=False)


def host_configuration(conf: Any) -> HostConfiguration:
    """Return this machine's configuration for all teams. Raises ConfigError or HomeError if it cannot be published."""
    home = collect(conf, None)
    return HostConfiguration([*_options(home.settings, secret=False), *_options(home.secret, secret=True)], home)


def home_store(site: Site) -> HomeStore:
    """Return the store of the worker app's Airflow homes."""
    return HomeStore(VolumeFiles(modal.Volume.from_name(site.names.logs, **site.scope)))


def publish(store: HomeStore, home: HostHome, public_key: str) -> HomeSnapshot:
    """Store a home for a probe, unless it is there, and return its snapshot.

    It does not become the current one of any executor, and is removed as an old one.
    """
    snapshot = home.snapshot(public_key)
    try:
        snapshot_of(store.files, snapshot.id)
    except (FileNotFoundError, HomeError):
        store.write(snapshot, home.contents)
    return snapshot


def _options(settings: Mapping[str, Mapping[str, str]], *, secret: bool) -> list[HostOption]:
    return [
        HostOption(section, option, value, travels=True, secret=secret)
        for section, options in settings.items()
        for option, value in options.items()
    ]
