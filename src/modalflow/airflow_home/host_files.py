"""The files of the Airflow host that belong to its Airflow: plugins, local settings, modules named by settings.

Lists files and reads sources for their imports. Must import none of them.
"""

from __future__ import annotations

import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from modalflow.airflow_compat.configuration import airflow_home
from modalflow.airflow_home.host_modules import HostModules, dotted_names, own_folders
from modalflow.airflow_home.host_settings import HostSettings
from modalflow.bundles.scan import is_ignored
from modalflow.errors import ConfigError
from modalflow.names import HOME_CONFIG, HOME_MODULES, HOME_PLUGINS

log = logging.getLogger(__name__)

#: Limits: files, bytes of one file, bytes of all files. A container fetches them before its first task.
MOST_FILES = 5_000
LARGEST_FILE = 16 << 20
LARGEST_HOME = 64 << 20
#: Limits of a folder: folders below it, each as often as links lead to it, and levels.
MOST_FOLDERS, MOST_LEVELS = 5_000, 100

#: Airflow's own files, with secrets or for the host's processes. They never leave the host.
_PRIVATE = ("airflow.cfg*", "airflow*.db*", ".env", "webserver_config.*", "simple_auth_manager_passwords.json*")

#: Settings with classes, sent with each workload.
_WITH_WORKLOADS = (
    ("dag_processor", "dag_bundle_config_list"),
    ("logging", "logging_config_class"),
    ("logging", "secret_mask_adapter"),
)

#: The module of policies and hooks that Airflow imports at its start, wherever it is on ``sys.path``.
_LOCAL_SETTINGS = "airflow_local_settings"


@dataclass
class HostFiles:
    """This host's files for the Airflow home of containers."""

    files: dict[str, Path] = field(default_factory=dict)
    """Path in the home, with slashes → file on this host."""
    problems: list[str] = field(default_factory=list)
    """Unreadable files, each with the reason. Airflow on this host cannot read them either."""
    size: int = 0
    """Bytes of all files together."""

    def add(self, setting: str, folder: Path, prefix: str, wanted: Callable[[str], bool] | None = None) -> None:
        """Add the files below a folder; nothing if there is no such folder.

        ``setting`` names the folder in an error. ``wanted`` decides by the name of a file.
        """
        for path, file, found in _Walk(setting, self.problems).below(folder):
            if wanted is None or wanted(file.name):
                self._add(setting, f"{prefix}/{path}", file, found)

    def add_module(self, name: str, source: Path, wanted: Callable[[str], bool] | None = None) -> None:
        """Add a module, or a package with all its files. If it exceeds a limit, it is a problem, and none is added."""
        files, size, path = dict(self.files), self.size, f"{HOME_MODULES}/{name}"
        try:
            if source.is_dir():
                self.add(f"The package {name}", source, path, wanted)
            elif (found := _readable(source, self.problems)) is not None and stat.S_ISREG(found.st_mode):
                self._add(f"The module {name}", path, source, found)
        except ConfigError as error:
            self.files, self.size = files, size
            self.problems.append(f"Tasks on Modal do not have a package of this host: {error}.")

    def _add(self, setting: str, path: str, file: Path, found: os.stat_result) -> None:
        if path in self.files:
            return
        if found.st_size > LARGEST_FILE:
            raise ConfigError(setting, str(file), f"files of at most {LARGEST_FILE >> 20} MiB. {_ELSEWHERE}")
        self.files[path] = file
        self.size += found.st_size
        if len(self.files) > MOST_FILES:
            raise ConfigError(setting, str(file.parent), f"at most {MOST_FILES:,} files in all. {_ELSEWHERE}")
        if self.size > LARGEST_HOME:
            raise ConfigError(setting, str(file.parent), f"at most {LARGEST_HOME >> 20} MiB in all. {_ELSEWHERE}")


_ELSEWHERE = (
    "Containers get the plugins, the Python files of config/, and the modules that settings name. Move other files to "
    "another folder"
)


def host_files(conf: Any, settings: HostSettings) -> Mapping[str, Path]:
    """Return the files for the Airflow home of containers: path in the home → file on this host.

    ``settings`` may name modules of this host's. Raises ConfigError if the files exceed a limit. Logs unreadable files.
    """
    found = find_host_files(conf, settings)
    for problem in found.problems:
        log.warning("%s", problem)
    return found.files


def find_host_files(conf: Any, settings: HostSettings) -> HostFiles:
    """Return the files with their problems; raise ConfigError if they exceed a limit."""
    plugins, config = _plugins_folder(conf), _config_folder()
    found = HostFiles()
    if plugins is not None:
        found.add("[core] plugins_folder", plugins, HOME_PLUGINS)
    # Not its other files: Airflow's own configuration and keys are often there.
    found.add("AIRFLOW_HOME", config, HOME_CONFIG, _is_python)
    late = [config] if plugins is None else [config, plugins]
    modules = HostModules(own_folders(sys.path, os.environ.get("PYTHONPATH", ""), late))
    modules.add([_LOCAL_SETTINGS])
    for value in _values(conf, settings):
        modules.add(dotted_names(value))
    modules.add_imports_of([file for file in found.files.values() if file.suffix == ".py"])
    for relative, source in sorted(modules.found.items()):
        only_python = source.is_relative_to(os.path.realpath(config))
        found.add_module(relative, source, _is_python if only_python else None)
    return found


def _plugins_folder(conf: Any) -> Path | None:
    folder = conf.get("core", "plugins_folder", fallback="") or ""
    return Path(folder).expanduser() if folder else None


def _config_folder() -> Path:
    return Path(airflow_home()) / "config"


def _values(conf: Any, settings: HostSettings) -> Iterator[str]:
    """Yield the values with classes for tasks: of travelling settings, and of those sent with each workload."""
    yield from (setting.value for setting in settings.travelling)
    for section, option in _WITH_WORKLOADS:
        yield str(conf.get(section, option, fallback="") or "")


class _Walk:
    """A walk through the files below one folder, which ``setting`` names."""

    def __init__(self, setting: str, problems: list[str]) -> None:
        self._setting, self._problems = setting, problems
        self._folders = 0

    def below(self, folder: Path) -> Iterator[tuple[str, Path, os.stat_result]]:
        """Yield (path, file, status). Links are followed, as Airflow does, but not in circles.

        Caches and version control are left out, and so are names with two dots, the hidden versions of a mounted folder
        of Kubernetes. Raises ConfigError if links between folders give too many paths.
        """
        try:
            inside: tuple[tuple[int, int], ...] = (_identity(folder.stat()),)
        except OSError:
            inside = ()
        yield from self._below(folder, "", inside)

    def _below(
        self, folder: Path, prefix: str, inside: tuple[tuple[int, int], ...]
    ) -> Iterator[tuple[str, Path, os.stat_result]]:
        self._folders += 1
        if self._folders > MOST_FOLDERS or len(inside) > MOST_LEVELS:
            raise ConfigError(
                self._setting,
                str(folder),
                f"at most {MOST_FOLDERS:,} folders with {MOST_LEVELS} levels; links to folders count as folders. "
                f"{_ELSEWHERE}",
            )
        for entry in self._entries(folder):
            if is_ignored(entry.name) or entry.name.startswith("..") or _is_private(entry.name):
                continue
            if (found := _readable(Path(entry.path), self._problems)) is None:
                continue
            if stat.S_ISDIR(found.st_mode):
                if (identity := _identity(found)) not in inside:
                    yield from self._below(Path(entry.path), f"{prefix}{entry.name}/", (*inside, identity))
            elif stat.S_ISREG(found.st_mode):
                yield prefix + entry.name, Path(entry.path), found

    def _entries(self, folder: Path) -> list[os.DirEntry[str]]:
        try:
            with os.scandir(folder) as listing:
                return sorted(listing, key=lambda entry: entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            self._problems.append(
                f"{folder} cannot be listed ({error.strerror}), so tasks on Modal do not have its files."
            )
            return []


def _identity(folder: os.stat_result) -> tuple[int, int]:
    return folder.st_dev, folder.st_ino


def _is_python(name: str) -> bool:
    return name.endswith(".py")


def _is_private(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in _PRIVATE)


def _readable(file: Path, problems: list[str]) -> os.stat_result | None:
    """Return the status of a file; None, with a problem, if it is unreadable or its name is no text."""
    try:
        str(file).encode()
        found = file.stat()
    except UnicodeEncodeError:
        problems.append(f"The name of {str(file)!r} is not UTF-8, so tasks on Modal do not have it. Rename it.")
        return None
    except OSError:
        # A broken link, or a file that was removed just now.
        return None
    if stat.S_ISREG(found.st_mode) and not os.access(file, os.R_OK):
        problems.append(f"{file} is not readable for this user, so tasks on Modal do not have it.")
        return None
    return found
