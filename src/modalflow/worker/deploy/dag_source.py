"""Where the worker gets the local DAG bundles of the Airflow host from: its image, a Volume, or a bucket.

Decided when the worker is deployed. Tells what that means for the app that is deployed; deploys nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

import modal

from modalflow.bundles import configured
from modalflow.bundles.configured import GIT_BUNDLE, Configured
from modalflow.bundles.scan import IGNORED_FILES, IGNORED_FOLDERS
from modalflow.errors import DeployError
from modalflow.names import BUNDLES_ROOT, BUNDLES_VARIABLE, DAGS_MOUNT, SYNCED_VARIABLE, Names, file_name

_NOT_BAKED = [f"**/{name}" for name in (*sorted(IGNORED_FOLDERS), *IGNORED_FILES)]


class SourceKind(StrEnum):
    """The ways of ``modalflow deploy --dags-source``."""

    LOCAL = "local"
    VOLUME = "volume"
    CLOUD_BUCKET = "cloud-bucket"


@dataclass(frozen=True)
class Bucket:
    """A bucket in which the DAG bundles are."""

    name: str
    prefix: str = ""
    secret: str = ""
    """Name of the Modal Secret with its credentials; none for a public bucket."""
    endpoint_url: str = ""
    """Of what is not S3: R2, GCS, …"""

    def arguments(self) -> dict[str, Any]:
        """Those of a ``modal.CloudBucketMount``."""
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
    """Whether a bundle beside these is a Git repository, for which the containers need the program."""

    def check(self) -> None:
        """DeployError for what cannot be deployed."""
        wanted = self.kind is SourceKind.CLOUD_BUCKET
        if wanted is (self.bucket is None) or (self.bucket is not None and not self.bucket.name):
            raise DeployError(
                "--bucket-name and the other options of a bucket belong to --dags-source cloud-bucket, which needs "
                "the name."
            )
        for name, folder in self.bundles.items():
            if self.bucket is not None and (folder.is_absolute() or ".." in folder.parts):
                raise DeployError(
                    f"DAG bundle {name!r} is to be {str(folder)!r}; in a bucket, expected a folder below its prefix: "
                    f"`--dags-bundle {name}=team-a/dags`, or `{name}=.` for the prefix itself."
                )
            if self.bucket is None and not folder.is_dir():
                raise DeployError(
                    f"The folder {folder} of DAG bundle {name!r} does not exist. Give an existing one: "
                    f"`modalflow deploy --dags-bundle {name}=FOLDER`."
                )

    def folders(self) -> dict[str, str]:
        """Where the bundles are in a container from its start: name → folder."""
        roots = {SourceKind.LOCAL: BUNDLES_ROOT, SourceKind.CLOUD_BUCKET: DAGS_MOUNT}
        if (root := roots.get(self.kind)) is None:
            return {}
        in_bucket = self.kind is SourceKind.CLOUD_BUCKET
        return {
            name: str(Path(root, folder if in_bucket else file_name(name))) for name, folder in self.bundles.items()
        }

    def places(self, names: Names) -> dict[str, str]:
        """Where the bundles are, for whoever asks: name → folder, or the Volume."""
        on_volume = {name: f"Volume {names.dags}" for name in self.bundles if self.kind is SourceKind.VOLUME}
        return self.folders() | on_volume

    def variables(self) -> dict[str, str]:
        """What the worker's containers are told."""
        synced = sorted(self.bundles) if self.kind is SourceKind.VOLUME else []
        return {
            BUNDLES_VARIABLE: json.dumps(self.folders(), sort_keys=True),
            SYNCED_VARIABLE: json.dumps(synced),
        }

    def add_to(self, image: modal.Image) -> modal.Image:
        """The image with the files that are to be in it; they are added when a container starts, and cost no build."""
        if self.kind is SourceKind.LOCAL:
            for name, folder in self.bundles.items():
                image = image.add_local_dir(folder, self.folders()[name], ignore=_NOT_BAKED)
        return image

    def mounts(self) -> dict[str, Any]:
        """What every Function mounts for it."""
        return {} if self.bucket is None else {DAGS_MOUNT: modal.CloudBucketMount(**self.bucket.arguments())}


Tell = Callable[[str], None]
"""Told, line by line, what a user should know."""


@dataclass(frozen=True)
class Configuration:
    """The DAG bundles of this machine's Airflow."""

    bundles: tuple[Configured, ...] = ()
    dags_folder: str = ""

    def source(
        self, kind: SourceKind, bundles: Mapping[str, Path] | None, bucket: Bucket | None, tell: Tell
    ) -> DagSource:
        """The source of ``bundles``, or of every local one of the configuration."""
        if bundles is None:
            bundles = self._in_bucket() if kind is SourceKind.CLOUD_BUCKET else self._here(tell)
        return DagSource(kind, bundles, bucket, any(each.classpath == GIT_BUNDLE for each in self.bundles))

    def _here(self, tell: Tell) -> dict[str, Path]:
        found = {}
        for bundle in self.bundles:
            folder = bundle.folder(self.dags_folder)
            if bundle.is_local and folder.is_dir():
                found[bundle.name] = folder
            elif bundle.is_local:
                tell(f"DAG bundle {bundle.name!r} is not deployed: its folder {folder} does not exist.")
        return found

    def _in_bucket(self) -> dict[str, Path]:
        """Each in a folder of its name."""
        return {bundle.name: Path(bundle.name) for bundle in self.bundles if bundle.is_local}


def configuration(tell: Tell) -> Configuration:
    """What this machine's Airflow is configured with; nothing without Airflow. Raises ConfigError."""
    try:
        from modalflow.airflow_compat import dag_bundle_config, own_conf
    except ImportError:
        tell("Airflow is not installed here: there is no DAG bundle to deploy, and the worker runs raw commands only.")
        return Configuration()
    conf = own_conf()
    dags_folder = conf.get("core", "dags_folder", fallback="") or ""
    return Configuration(tuple(configured.read(dag_bundle_config(conf))), dags_folder)


def without_provider(bundles: Iterable[Configured], packages: Iterable[str]) -> dict[str, str]:
    """Bundles whose class is a provider's that the image lacks: name → provider package."""
    lacking = {}
    for bundle in bundles:
        parts = bundle.classpath.split(".")
        if parts[:2] != ["airflow", "providers"]:
            continue
        names = ["-".join(["apache-airflow-providers", *parts[2:end]]) for end in range(len(parts), 2, -1)]
        if not set(names) & set(packages):
            lacking[bundle.name] = names[-1]
    return lacking
