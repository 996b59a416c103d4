"""The DAG bundles in Airflow's configuration. Does no I/O, and imports no bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.errors import ConfigError

LOCAL_BUNDLE = "airflow.dag_processing.bundles.local.LocalDagBundle"
VOLUME_BUNDLE = "modalflow.bundles.volume.ModalVolumeDagBundle"
GIT_BUNDLE = "airflow.providers.git.bundles.git.GitDagBundle"

_OPTION = "[dag_processor] dag_bundle_config_list"


@dataclass(frozen=True)
class ConfiguredBundle:
    """One bundle of the list."""

    name: str
    classpath: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_local(self) -> bool:
        """Return whether it is a folder on the Airflow host that only modalflow brings to the worker."""
        return self.classpath == LOCAL_BUNDLE

    @property
    def ships_itself(self) -> bool:
        """Return whether it is a folder on the Airflow host that the DAG processor uploads for the worker."""
        return self.classpath == VOLUME_BUNDLE

    def folder(self, dags_folder: str) -> Path:
        """Return the folder on the Airflow host; ``dags_folder`` is the default."""
        return Path(str(self.kwargs.get("path") or dags_folder)).expanduser()


def read_bundles(listed: str) -> list[ConfiguredBundle]:
    """Return the bundles in the text of ``[dag_processor] dag_bundle_config_list``. Raises ConfigError."""
    try:
        bundles: Any = json.loads(listed)
    except ValueError as error:
        raise ConfigError(_OPTION, listed, f"valid JSON: {error}") from error
    if not isinstance(bundles, list) or not all(isinstance(each, dict) and each.get("name") for each in bundles):
        raise ConfigError(_OPTION, listed, "a JSON list of objects with name, classpath and kwargs")
    return [
        ConfiguredBundle(str(each["name"]), str(each.get("classpath") or ""), dict(each.get("kwargs") or {}))
        for each in bundles
    ]
