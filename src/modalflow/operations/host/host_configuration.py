"""This machine's Airflow for containers, as a scheduler would publish it at its start here, now."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import modal

from modalflow.airflow_home.comparison import ComparedOption
from modalflow.airflow_home.snapshot import HomeSnapshot
from modalflow.airflow_home.store import HomeStore, snapshot_of
from modalflow.bundles.files import VolumeFiles
from modalflow.errors import HomeError
from modalflow.operations.site import Site

if TYPE_CHECKING:
    # They import Airflow, and commands run without it.
    from modalflow.airflow_home.host_home import HostHome
    from modalflow.airflow_home.host_settings import HostSettings


@dataclass(frozen=True)
class HostConfiguration:
    """The options set here, and the Airflow home of containers."""

    options: Sequence[ComparedOption]
    home: HostHome = field(repr=False)
    unreadable: Sequence[str] = ()
    """Options and files without a readable value here: sentences with the reason and the fix."""


def host_configuration(conf: Any) -> HostConfiguration:
    """Return this machine's configuration for all teams.

    Raises ConfigError if it cannot be published. Without Airflow, raises ImportError.
    """
    from modalflow.airflow_compat.configuration import own_conf
    from modalflow.airflow_home.host_files import find_host_files
    from modalflow.airflow_home.host_home import collect
    from modalflow.airflow_home.host_settings import host_settings

    settings = host_settings(conf)
    options = sorted(_options(settings), key=lambda option: (option.section, option.option))
    files = find_host_files(own_conf(), settings)
    return HostConfiguration(
        options, collect(conf, None), [*(str(each) for each in settings.unreadable), *files.problems]
    )


def home_of_team(team: str) -> HostHome:
    """Return the home of a team's executors. Errors are those of ``host_configuration``."""
    from modalflow.airflow_compat.configuration import conf_of_team
    from modalflow.airflow_home.host_home import collect

    return collect(conf_of_team(team), team)


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


def _options(settings: HostSettings) -> Iterator[ComparedOption]:
    from modalflow.airflow_compat.host_options import declared_options
    from modalflow.airflow_home.rules.rule import Place

    declared = declared_options()
    for each in settings.travelling:
        known = (each.section, each.option) in declared
        place = "sealed" if each.sealed else "travels"
        yield ComparedOption(
            each.section, each.option, each.value, travels=True, secret=each.sealed, place=place, known=known
        )
    for kept in settings.kept:
        rule = kept.rule
        yield ComparedOption(
            kept.section,
            kept.option,
            "",
            travels=False,
            secret=rule.place is Place.NEVER or _is_sensitive(declared.get((kept.section, kept.option))),
            reason=rule.reason,
            place=rule.place.value,
            known=True,
        )


def _is_sensitive(declaration: Mapping[str, Any] | None) -> bool:
    """Return whether an option can be secret: an undeclared one can."""
    return declaration is None or bool(declaration.get("sensitive"))
