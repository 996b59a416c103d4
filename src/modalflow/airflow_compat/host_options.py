"""The options that are set on this Airflow host, wherever they are set, and their values.

Knows the order in which Airflow searches: variables, ``airflow.cfg``, commands, the secrets backend. Values are
Airflow's own answers. Commands run, and the secrets backend is asked, only for the options that a caller reads.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from configparser import RawConfigParser
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from zoneinfo import ZoneInfo

from modalflow.airflow_compat.configuration import own_conf

_PREFIX = "AIRFLOW__"
#: Between a team and the section in a variable, and in a section of airflow.cfg.
_TEAM_IN_VARIABLE, _TEAM_IN_FILE = "___", "="


class Source(StrEnum):
    """The kinds of places where an option can be set, in Airflow's order."""

    VARIABLE = "variable"
    FILE = "airflow.cfg"
    COMMAND = "command"
    SECRETS_BACKEND = "secrets backend"


@dataclass(frozen=True)
class HostOption:
    """An option that is set on this host, under its current name."""

    section: str
    option: str
    source: Source
    set_as: str
    """The name under which it is set, for messages: a variable, or the option of a file."""
    sensitive: bool
    """Whether this Airflow or one of its providers declares it as a secret."""
    team: str | None = None
    """The team whose value it is; None for everyone's."""

    @property
    def rank(self) -> tuple[bool, int]:
        """Its place in Airflow's order: the lowest one wins."""
        return not self.set_as.startswith(_PREFIX), list(Source).index(self.source)


class HostOptions:
    """The options of one Airflow configuration. Creating one loads the options of the providers.

    ``sections`` are those of providers that are not installed: variables do not show the dots in a section's name.
    """

    def __init__(self, conf: Any = None, sections: Iterable[str] = ()) -> None:
        # An executor of a team has a view of the configuration that lists nothing.
        parser: Any = conf if isinstance(conf, RawConfigParser) else own_conf()
        self._conf = parser
        self._declared = declared_options(parser)
        self._sensitive: frozenset[tuple[str, str]] = frozenset(parser.sensitive_config_values)
        known = {*sections, *(section for section, _ in self._declared), *map(str.lower, self._conf.sections())}
        self._sections = {section.replace(".", "_"): section for section in sorted(known)}

    def set_options(self, team: str | None = None) -> list[HostOption]:
        """Return the options that are set, sorted, each once: the team's own value before everyone's."""
        found: dict[tuple[str, str], HostOption] = {}
        for option in [*self._of_team(team), *self._of_everyone()]:
            known = found.get((option.section, option.option))
            if known is None or (option.team == known.team and option.rank < known.rank):
                found[option.section, option.option] = option
        return [found[key] for key in sorted(found)]

    def read(self, option: HostOption) -> str | None:
        """Return the value as this host's ``conf.get`` does; None if there is none.

        Raises what Airflow, a command or a secrets backend raises.
        """
        team = {"team_name": option.team} if option.team else {}
        with warnings.catch_warnings():
            # Old names of options are a matter between Airflow and its user.
            warnings.simplefilter("ignore")
            value = self._conf.get(option.section, option.option, fallback=None, **team)
        return None if value is None else str(value)

    def default(self, option: HostOption) -> str | None:
        """Return the default of an option as ``read`` would."""
        from airflow.configuration import expand_env_var

        value = self._conf.get_default_value(option.section, option.option)
        return None if value is None else expand_env_var(str(value))

    def can_have_dots(self, option: HostOption) -> bool:
        """Return whether the name of the section can have dots, which its variable does not show."""
        return option.source is Source.VARIABLE and "_" in option.section and option.section not in self._sections

    def _of_everyone(self) -> Iterator[HostOption]:
        for name in os.environ:
            rest = name.removeprefix(_PREFIX)
            # Variables of teams have three underscores after the name of the team.
            if rest != name and _TEAM_IN_VARIABLE not in rest:
                yield from self._of_variable(name, rest, None)
        for section in self._conf.sections():
            if _TEAM_IN_FILE not in section:
                yield from self._of_section(section, section.lower(), None)

    def _of_team(self, team: str | None) -> Iterator[HostOption]:
        if team is None:
            return
        prefix = f"{_PREFIX}{team.upper()}{_TEAM_IN_VARIABLE}"
        for name in os.environ:
            if name.startswith(prefix):
                yield from self._of_variable(name, name.removeprefix(prefix), team)
        for section in self._conf.sections():
            if section.startswith(f"{team}{_TEAM_IN_FILE}"):
                yield from self._of_section(section, section.removeprefix(f"{team}{_TEAM_IN_FILE}").lower(), team)

    def _of_variable(self, name: str, rest: str, team: str | None) -> Iterator[HostOption]:
        section, separator, option = rest.lower().partition("__")
        section = self._sections.get(section, section)
        # Airflow finds no variable in lower case.
        if separator and section and option and rest == rest.upper():
            base, source = self._without_suffix(section, option)
            yield self._option(section, base, Source.VARIABLE if source is Source.FILE else source, name, team)

    def _of_section(self, written: str, section: str, team: str | None) -> Iterator[HostOption]:
        for option in RawConfigParser.options(self._conf, written):
            base, source = self._without_suffix(section, option)
            # Airflow runs no command for a team, and asks no secrets backend.
            if team is None or source is Source.FILE:
                yield self._option(section, base, source, f"[{written}] {option}", team)

    def _without_suffix(self, section: str, option: str) -> tuple[str, Source]:
        for suffix, source in (("_cmd", Source.COMMAND), ("_secret", Source.SECRETS_BACKEND)):
            base = option.removesuffix(suffix)
            if base != option and (section, base) in self._sensitive:
                return base, source
        return option, Source.FILE

    def _option(self, section: str, option: str, source: Source, set_as: str, team: str | None) -> HostOption:
        section, option = self._conf.inversed_deprecated_options.get((section, option), (section, option))
        return HostOption(section, option, source, set_as, (section, option) in self._sensitive, team)


def declared_options(conf: Any = None) -> Mapping[tuple[str, str], Mapping[str, Any]]:
    """Return the options that this Airflow and its providers declare: (section, option) → description."""
    parser: Any = own_conf() if conf is None else conf
    _load_providers(parser)
    description = parser.configuration_description
    return {
        (section.lower(), option.lower()): told or {}
        for section, content in description.items()
        for option, told in (content.get("options") or {}).items()
    }


def shared_secret() -> str:
    """Return a secret that the schedulers of an Airflow share and that no task has; empty if there is none."""
    conf: Any = own_conf()
    candidates = (("core", "fernet_key"), ("api_auth", "jwt_secret"), ("database", "sql_alchemy_conn"))
    found = (conf.get(section, option, fallback="") for section, option in candidates)
    return next((str(secret) for secret in found if secret), "")


def host_timezone() -> str:
    """Return the name of this host's time zone, as Airflow resolves ``system``; empty for a zone without a name."""
    from pendulum.tz.local_timezone import get_local_timezone

    try:
        with warnings.catch_warnings():
            # A host without any configuration has UTC.
            warnings.simplefilter("ignore")
            name = str(get_local_timezone().name)
        return str(ZoneInfo(name)) if name else ""
    except Exception:  # noqa: BLE001  It is a file of the user's, or text in TZ.
        return ""


def _load_providers(conf: Any) -> None:
    """Load the options of providers, which some versions of Airflow do late."""
    if getattr(conf, "_providers_configuration_loaded", True):
        return
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager
    manager().initialize_providers_configuration()
    if not conf._providers_configuration_loaded:
        conf.load_providers_configuration()
