"""One Airflow home in a container."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modalflow.names import HOME_MODULES, HOME_PLUGINS


@dataclass(frozen=True)
class AirflowHome:
    """A folder for Airflow's home."""

    folder: str
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The host's settings that no file can express."""

    @property
    def config(self) -> str:
        """Return its configuration file."""
        return f"{self.folder}/airflow.cfg"

    @property
    def plugins(self) -> str:
        """Return its folder of plugins."""
        return f"{self.folder}/{HOME_PLUGINS}"

    @property
    def modules(self) -> str:
        """Return its folder of modules for ``sys.path``, where Airflow does not put it; empty if there is none."""
        folder = Path(self.folder, HOME_MODULES)
        return str(folder) if folder.is_dir() else ""
