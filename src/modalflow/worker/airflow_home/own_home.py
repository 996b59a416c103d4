"""The AIRFLOW_HOME of a container's image: its files and settings win over the host's.

Must not import Airflow. The image's folder stays as it is: other folders get links to its files.
"""

from __future__ import annotations

import configparser
import logging
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from modalflow.airflow_home.snapshot import Settings
from modalflow.names import airflow_variable

log = logging.getLogger(__name__)

#: The variables by which an image names its folder, its configuration file, and its plugins.
HOME_VARIABLE = "AIRFLOW_HOME"
CONFIG_VARIABLE = "AIRFLOW_CONFIG"
PLUGINS_VARIABLE = airflow_variable("core", "plugins_folder")

_CONFIG = "airflow.cfg"
_PLUGINS = ("core", "plugins_folder")

#: Every container has these entries of its own.
_NOT_LINKED = frozenset({_CONFIG, "logs", "dag_bundles", "airflow.db"})


@dataclass(frozen=True)
class OwnHome:
    """An image's part of an Airflow home; it may be empty."""

    folder: Path | None = None
    config: Path | None = None
    """Its configuration file, which may be in another folder."""
    plugins: Path | None = None
    """A folder of plugins outside of the home."""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> OwnHome:
        """Return the home in a container with these variables."""
        folder = _existing(variables.get(HOME_VARIABLE, ""))
        config = _file(variables.get(CONFIG_VARIABLE) or str(folder / _CONFIG if folder else ""))
        own = cls(folder, config)
        named = variables.get(PLUGINS_VARIABLE) or own.all_settings.get(_PLUGINS[0], {}).get(_PLUGINS[1], "")
        plugins = _existing(named)
        return cls(folder, own.config, None if folder and plugins == folder / "plugins" else plugins)

    @property
    def is_empty(self) -> bool:
        """Return whether it changes nothing in a home."""
        return self.config is None and self.plugins is None and not any(self._entries())

    def add_to(self, home: Path) -> None:
        """Add the image's files to a folder as links, in place of files with the same names."""
        for entry in self._entries():
            _link(entry, home / entry.name)
        if self.plugins is not None:
            _link(self.plugins, home / "plugins")

    @cached_property
    def settings(self) -> Settings:
        """Return the decisions in its configuration file: neither empty values, nor Airflow's defaults, because Airflow
        writes these into a new file."""
        defaults = _airflows_defaults() if self.all_settings else {}
        home = str(self.folder or "")
        decided: dict[str, dict[str, str]] = {}
        for section, options in self.all_settings.items():
            for option, value in options.items():
                default = defaults.get(section, {}).get(option, "").replace("{AIRFLOW_HOME}", home)
                if value and value != default and (section, option) != _PLUGINS:
                    decided.setdefault(section, {})[option] = value
        return decided

    @cached_property
    def all_settings(self) -> Settings:
        """Return its whole configuration file."""
        if self.config is None:
            return {}
        parser = configparser.ConfigParser(interpolation=None, strict=False)
        try:
            parser.read_string(self.config.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, configparser.Error) as error:
            # Not the error's text, which may have a line of the file.
            log.error("The image's %s cannot be read: %s. Its settings do not hold", self.config, type(error).__name__)
            return {}
        return {
            section: {option: value.replace("%%", "%") for option, value in parser.items(section)}
            for section in parser.sections()
        }

    def _entries(self) -> Iterator[Path]:
        if self.folder is not None:
            yield from (each for each in sorted(self.folder.iterdir()) if each.name not in _NOT_LINKED)


#: An image without any.
NO_HOME = OwnHome()


def _existing(folder: str) -> Path | None:
    path = Path(folder).expanduser() if folder else None
    return path.absolute() if path is not None and path.is_dir() else None


def _file(path: str) -> Path | None:
    return Path(path) if path and Path(path).is_file() else None


def _link(source: Path, target: Path) -> None:
    """Make ``target`` a link to ``source``. If both are folders, they become one, and files of ``source`` win."""
    if source.is_dir() and target.is_dir() and not target.is_symlink():
        for entry in sorted(source.iterdir()):
            _link(entry, target / entry.name)
        return
    if target.is_dir() and not target.is_symlink():
        shutil.rmtree(target)
    else:
        target.unlink(missing_ok=True)
    target.symlink_to(source.absolute())


def _airflows_defaults() -> dict[str, dict[str, str]]:
    """Return the defaults of the installed Airflow's options; empty if they cannot be read."""
    try:
        yaml: Any = import_module("yaml")
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        airflow = find_spec("airflow")
        folders = airflow.submodule_search_locations if airflow is not None else None
        for folder in folders or ():
            file = Path(folder, "config_templates", "config.yml")
            if file.is_file():
                described: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), loader)
                return {section: _defaults_of(each) for section, each in described.items()}
    except Exception as error:  # noqa: BLE001  Another Airflow may have another format: its file then decides alone.
        log.warning("The defaults of Airflow cannot be read: %s", error)
    return {}


def _defaults_of(section: Mapping[str, Any]) -> dict[str, str]:
    options: Mapping[str, Mapping[str, Any]] = section.get("options") or {}
    return {name.lower(): str(each["default"]) for name, each in options.items() if each.get("default") is not None}
