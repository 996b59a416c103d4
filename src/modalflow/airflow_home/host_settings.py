"""The settings of this Airflow host: the part that holds in containers, and the part that stays, with its rule.

Reads the configuration once, when an executor starts. Only the values that travel are read in full: no command runs for
a setting of the host alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from modalflow.airflow_compat.host_options import HostOption, HostOptions, Source, host_timezone
from modalflow.airflow_home.rules.rule import Place, Rule
from modalflow.airflow_home.rules.table import RULES, place_of, rule_of
from modalflow.support.bounded import within
from modalflow.support.described import describe
from modalflow.support.text import one_line

#: Options with the arguments of a secrets backend → the beginning of the options with one argument each. Airflow reads
#: the latter from variables alone.
_ARGUMENTS: Final[Mapping[tuple[str, str], str]] = {
    ("secrets", "backend_kwargs"): "backend_kwarg__",
    ("workers", "secrets_backend_kwargs"): "secrets_backend_kwarg__",
}

#: The exit code in Airflow's error for a command.
_EXIT_CODE: Final = re.compile(r"Error code is: (-?\d+)")

#: Seconds for a command or a secrets backend. Airflow itself has no limit, and waits at the first use of the setting.
PATIENCE: Final = 30.0

#: The rule for a logging configuration with which this host reads the logs Volume.
_OWN_LOGGING: Final = Rule(
    "logging",
    "logging_config_class",
    Place.WORKER,
    "The Airflow host reads logs from the logs Volume with it. Containers write to it without it.",
)


@dataclass(frozen=True)
class Setting:
    """A setting that holds in containers."""

    section: str
    option: str
    value: str = field(repr=False)
    """As this host's ``conf.get`` returns it."""
    source: Source
    set_as: str
    """The variable, or the option of airflow.cfg, that has it."""
    sealed: bool = False
    """Whether it travels encrypted."""
    as_variable: bool = False
    """Whether it must be a variable in containers too: its section's name is not known, only that of the variable."""

    @property
    def stored_option(self) -> str:
        """The option's name in the home. No file of Airflow's has a name in upper case: it becomes a variable."""
        return self.option.upper() if self.as_variable else self.option


@dataclass(frozen=True)
class KeptSetting:
    """A setting that stays on the host, or that the worker decides."""

    section: str
    option: str
    source: Source
    set_as: str
    rule: Rule


@dataclass(frozen=True)
class UnreadableSetting:
    """A setting that cannot be read on this host: its command or secrets backend failed, or its text is malformed."""

    section: str
    option: str
    source: Source
    set_as: str
    reason: str

    def __str__(self) -> str:
        return (
            f"[{self.section}] {self.option}, set by {self.set_as}, cannot be read here: {self.reason}. "
            "Tasks on Modal have its default. Fix it, then restart the scheduler."
        )


@dataclass(frozen=True)
class HostSettings:
    """Everything that is set on this host. Each part is sorted by section and option."""

    travelling: tuple[Setting, ...] = ()
    kept: tuple[KeptSetting, ...] = ()
    unreadable: tuple[UnreadableSetting, ...] = ()

    @property
    def plain(self) -> dict[str, dict[str, str]]:
        """The values that anyone with access to the Volume may read: section → option → value."""
        return _by_section(setting for setting in self.travelling if not setting.sealed)

    @property
    def secret(self) -> dict[str, dict[str, str]]:
        """The values that travel encrypted: section → option → value."""
        return _by_section(setting for setting in self.travelling if setting.sealed)


def host_settings(conf: Any = None, team: str | None = None) -> HostSettings:
    """Return the settings of this host for the containers of an executor.

    ``conf`` is Airflow's configuration, by default this process's. ``team`` is the executor's team: its own values
    replace those for all teams. A value in ``airflow.cfg`` that is Airflow's default counts as not set, because Airflow
    writes some defaults into new files; in a variable it counts. Raises nothing: see ``HostSettings.unreadable``.
    """
    options = HostOptions(conf, {rule.section for rule in RULES})
    found = [_judged(options, option) for option in options.set_options(team)]
    return HostSettings(
        tuple(_with_arguments(setting for setting in found if isinstance(setting, Setting))),
        tuple(setting for setting in found if isinstance(setting, KeptSetting)),
        tuple(setting for setting in found if isinstance(setting, UnreadableSetting)),
    )


def _judged(options: HostOptions, option: HostOption) -> Setting | KeptSetting | UnreadableSetting | None:
    """Return what becomes of a set option; None if it only repeats the default."""
    where = (option.section, option.option, option.source, option.set_as)
    rule = rule_of(option.section, option.option)
    if rule is not None and not rule.place.leaves_host:
        return None if _is_default(options, option) else KeptSetting(*where, rule)
    try:
        value = _read(options, option)
        default = options.default(option)
    except Exception as error:  # noqa: BLE001  A command, a backend or a text of the user's can raise anything.
        return UnreadableSetting(*where, _reason(option.source, error))
    if value is None or (value == (default or "") and option.source is not Source.VARIABLE):
        return None
    if (option.section, option.option) == ("logging", "logging_config_class") and _logs_to_volume():
        return KeptSetting(*where, _OWN_LOGGING)
    sealed = place_of(option.section, option.option, value, sensitive=option.sensitive).place is Place.SEALED
    return Setting(*where[:2], value, *where[2:], sealed, options.can_have_dots(option))


def _read(options: HostOptions, option: HostOption) -> str | None:
    """Return the value of an option; raise TimeoutError if its command or its secrets backend takes too long."""
    if option.source in (Source.COMMAND, Source.SECRETS_BACKEND):
        try:
            value = within(PATIENCE, lambda: options.read(option))
        except TimeoutError as error:
            raise TimeoutError(f"there was no answer within {PATIENCE:g} s") from error
    else:
        value = options.read(option)
    if (option.section, option.option, value) == ("core", "default_timezone", "system"):
        # In a container, `system` would be the zone of the container: UTC.
        value = host_timezone()
        if not value:
            raise ValueError("it is `system`, and the time zone of this host has no name. Name one, e.g. Europe/Berlin")
    if value is not None and "\0" in value:
        raise ValueError("it has a NUL character, which no variable can have")
    return value


def _logs_to_volume() -> bool:
    # It imports Airflow's logging configuration.
    from modalflow import airflow_logging

    try:
        return airflow_logging.is_in_use()
    except Exception:  # noqa: BLE001  The class is the user's own, and its errors are for the executor's check of it.
        return False


def _is_default(options: HostOptions, option: HostOption) -> bool:
    """Return whether a line in airflow.cfg only repeats the default. No command runs for an answer."""
    if option.source is not Source.FILE:
        return False
    try:
        return options.read(option) == (options.default(option) or "")
    except Exception:  # noqa: BLE001  Its value is of no concern here.
        return False


def _reason(source: Source, error: Exception) -> str:
    """Return an error without a command and its output, which can hold the secret."""
    text = describe(error)
    if source is not Source.COMMAND:
        return one_line(text).rstrip(".")
    if isinstance(error, TimeoutError) and str(error):
        return str(error)
    code = _EXIT_CODE.search(text)
    return f"the command ended with exit code {code[1]}" if code else f"the command failed ({type(error).__name__})"


def _with_arguments(settings: Iterable[Setting]) -> list[Setting]:
    """Return the settings with single arguments of a secrets backend as a part of all its arguments."""
    found = {(setting.section, setting.option): setting for setting in settings}
    for (section, option), beginning in _ARGUMENTS.items():
        single = [
            setting for setting in found.values() if setting.section == section and setting.option.startswith(beginning)
        ]
        if not single:
            continue
        whole = found.get((section, option), single[0])
        values = _as_object(whole.value) if whole.option == option else {}
        for setting in single:
            del found[setting.section, setting.option]
            values[setting.option.removeprefix(beginning)] = setting.value
        found[section, option] = Setting(section, option, json.dumps(values), whole.source, whole.set_as, sealed=True)
    return [found[key] for key in sorted(found)]


def _as_object(text: str) -> dict[str, Any]:
    """Return the arguments of a secrets backend; none if the text is malformed, as Airflow does."""
    try:
        read = json.loads(text)
    except ValueError:
        return {}
    return read if isinstance(read, dict) else {}


def _by_section(settings: Iterable[Setting]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for setting in settings:
        found.setdefault(setting.section, {})[setting.stored_option] = setting.value
    return found
