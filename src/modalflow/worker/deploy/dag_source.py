"""The source of the Airflow host's local DAG bundles for the worker: its image, a Volume, or a bucket.

Chosen when the worker is deployed. Returns what the app needs for it; deploys nothing.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import modal

from modalflow.bundles.configured import GIT_BUNDLE, ConfiguredBundle, read_bundles
from modalflow.bundles.scan import IGNORED_FILES, IGNORED_FOLDERS
from modalflow.errors import DeployError
from modalflow.names import BUNDLES_ROOT, BUNDLES_VARIABLE, DAGS_MOUNT, SYNCED_VARIABLE, Names, file_name

_NOT_BAKED = [f"**/{name}" for name in (*sorted(IGNORED_FOLDERS), *IGNORED_FILES)]


class SourceKind(StrEnum):
    """The values of ``modalflow deploy --dags-source``."""

    LOCAL = "local"
    VOLUME = "volume"
    CLOUD_BUCKET = "cloud-bucket"


#: What brings a changed DAG file to the worker.
_AGAIN = {SourceKind.LOCAL: "deploy again", SourceKind.VOLUME: "run `modalflow sync`"}


@dataclass(frozen=True)
class Bucket:
    """A bucket with the DAG bundles."""

    name: str
    prefix: str = ""
    secret: str = ""
    """The name of the Modal Secret with its credentials; empty for a public bucket."""
    endpoint_url: str = ""
    """The endpoint if it is not S3: R2, GCS, …"""

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of a ``modal.CloudBucketMount``."""
        prefix = self.prefix.strip("/")
        return {
            "bucket_name": self.name,
            "bucket_endpoint_url": self.endpoint_url or None,
            "key_prefix": f"{prefix}/" if prefix else None,
            "secret": modal.Secret.from_name(self.secret) if self.secret else None,
            "read_only": True,
        }


@dataclass(frozen=True)
class DagSource:
    """The source, and the bundles that come from it."""

    kind: SourceKind = SourceKind.LOCAL
    bundles: Mapping[str, Path] = field(default_factory=dict)
    """Name → folder: on this machine, or below the bucket's prefix."""
    bucket: Bucket | None = None
    needs_git: bool = False
    """Whether another bundle is a Git repository, for which the containers need the program."""

    def check(self) -> None:
        """Raise DeployError if this cannot be deployed."""
        if self.bucket is not None and self.kind is not SourceKind.CLOUD_BUCKET:
            raise DeployError(
                f"--dags-source {self.kind.value} reads no bucket. Remove --bucket-name and the other options of a "
                "bucket, or set --dags-source cloud-bucket."
            )
        if self.kind is SourceKind.CLOUD_BUCKET and not (self.bucket and self.bucket.name):
            raise DeployError("--dags-source cloud-bucket needs the name of the bucket: --bucket-name NAME.")
        for name, folder in self.bundles.items():
            if self.bucket is not None and (folder.is_absolute() or ".." in folder.parts):
                raise DeployError(
                    f"DAG bundle {name!r} has the folder {str(folder)!r}; in a bucket, expected a folder below its "
                    f"prefix: `--dags-bundle {name}=team-a/dags`, or `{name}=.` for the prefix itself."
                )
            if self.bucket is None and not folder.is_dir():
                raise DeployError(
                    f"The folder {folder} of DAG bundle {name!r} does not exist. Give an existing one: "
                    f"`modalflow deploy --dags-bundle {name}=FOLDER`."
                )

    def without_files(self) -> list[str]:
        """Return a line for the user for each bundle of this machine without a file of Airflow's."""
        if self.bucket is not None:
            return []
        return [
            f"DAG bundle {name!r} has no DAG file in {folder}. After you write one, {_AGAIN[self.kind]}."
            for name, folder in self.bundles.items()
            if not any(name.endswith((".py", ".zip")) for name in _files(folder))
        ]

    def folders(self) -> dict[str, str]:
        """Return the bundles that a container has from its start: name → folder."""
        roots = {SourceKind.LOCAL: BUNDLES_ROOT, SourceKind.CLOUD_BUCKET: DAGS_MOUNT}
        if (root := roots.get(self.kind)) is None:
            return {}
        in_bucket = self.kind is SourceKind.CLOUD_BUCKET
        return {
            name: str(Path(root, folder if in_bucket else file_name(name))) for name, folder in self.bundles.items()
        }

    def places(self, names: Names) -> dict[str, str]:
        """Return the places of the bundles, to show them: name → folder, or the Volume."""
        on_volume = {name: f"Volume {names.dags}" for name in self.bundles if self.kind is SourceKind.VOLUME}
        return self.folders() | on_volume

    def variables(self) -> dict[str, str]:
        """Return the variables that describe the bundles to the worker's containers."""
        synced = sorted(self.bundles) if self.kind is SourceKind.VOLUME else []
        return {
            BUNDLES_VARIABLE: json.dumps(self.folders(), sort_keys=True),
            SYNCED_VARIABLE: json.dumps(synced),
        }

    def add_to(self, image: modal.Image) -> modal.Image:
        """Return the image with the bundles' files. They are added when a container starts, and need no build."""
        if self.kind is SourceKind.LOCAL:
            for name, folder in self.bundles.items():
                image = image.add_local_dir(folder, self.folders()[name], ignore=_NOT_BAKED)
        return image

    def mounts(self) -> dict[str, Any]:
        """Return what every Function mounts for the bundles: path → mount."""
        return {} if self.bucket is None else {DAGS_MOUNT: modal.CloudBucketMount(**self.bucket.arguments())}


def _files(root: Path) -> Iterator[str]:
    """Yield the names of the files below a folder. Follows links to folders, as Airflow does, each once."""
    seen = {root.resolve()}
    for folder, names, files in os.walk(root, followlinks=True):
        yield from files
        inner = names.copy()
        names.clear()
        for name in inner:
            if (resolved := Path(folder, name).resolve()) not in seen:
                seen.add(resolved)
                names.append(name)


Notify = Callable[[str], None]
"""Receives each line that the user should read."""


@dataclass(frozen=True)
class BundleConfiguration:
    """The DAG bundles of this machine's Airflow."""

    bundles: tuple[ConfiguredBundle, ...] = ()
    dags_folder: str = ""

    def source(
        self, kind: SourceKind, bundles: Mapping[str, Path] | None, bucket: Bucket | None, notify: Notify
    ) -> DagSource:
        """Return the source of ``bundles``; if they are None, of every local one of the configuration."""
        if bundles is None:
            bundles = self._in_bucket() if kind is SourceKind.CLOUD_BUCKET else self._here(notify)
        return DagSource(kind, bundles, bucket, any(each.classpath == GIT_BUNDLE for each in self.bundles))

    def _here(self, notify: Notify) -> dict[str, Path]:
        found = {}
        for bundle in self.bundles:
            folder = bundle.folder(self.dags_folder)
            if bundle.is_local and folder.is_dir():
                found[bundle.name] = folder
            elif bundle.is_local:
                notify(f"DAG bundle {bundle.name!r} is not deployed: its folder {folder} does not exist.")
        return found

    def _in_bucket(self) -> dict[str, Path]:
        """Return the local bundles, each in a folder of its name."""
        return {bundle.name: Path(bundle.name) for bundle in self.bundles if bundle.is_local}


def bundle_configuration(notify: Notify) -> BundleConfiguration:
    """Return the bundles of this machine's Airflow; none without Airflow. Raises ConfigError."""
    try:
        from modalflow.airflow_compat.configuration import dag_bundle_config, own_conf
    except ImportError:
        notify("Airflow is not installed here. No DAG bundle is deployed, and the worker runs raw commands only.")
        return BundleConfiguration()
    conf = own_conf()
    dags_folder = conf.get("core", "dags_folder", fallback="") or ""
    return BundleConfiguration(tuple(read_bundles(dag_bundle_config(conf))), dags_folder)


def without_provider(bundles: Iterable[ConfiguredBundle], packages: Iterable[str]) -> dict[str, str]:
    """Return the bundles whose class belongs to a provider that the image lacks: name → provider package."""
    lacking = {}
    for bundle in bundles:
        parts = bundle.classpath.split(".")
        if parts[:2] != ["airflow", "providers"]:
            continue
        names = ["-".join(["apache-airflow-providers", *parts[2:end]]) for end in range(len(parts), 2, -1)]
        if not set(names) & set(packages):
            lacking[bundle.name] = names[-1]
    return lacking
