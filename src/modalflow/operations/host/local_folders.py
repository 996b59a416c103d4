"""Settings with a folder of this machine where tasks share data: without a mount, each container has one of its own."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Final
from urllib.parse import unquote, urlsplit

from modalflow.airflow_home.loopback import label
from modalflow.airflow_home.snapshot import Settings
from modalflow.config.mounts import is_inside, normal_path
from modalflow.protocol.messages import Deployment

#: Options with a place for data that one task writes and another one reads.
_SHARED: Final = (("common.io", "xcom_objectstorage_path"), ("common.io", "state_store_objectstorage_path"))
#: Schemes of a path on the machine itself.
_LOCAL: Final = frozenset({"", "file", "local"})

ADVICE: Final = (
    "Set a URL of an object storage, e.g. s3://conn_id@bucket/xcoms, or mount a bucket at this path: `volumes` of the "
    "profile."
)


def unshared_folders(settings: Settings, deployment: Deployment) -> Iterator[str]:
    """Yield a clause about each such setting, with the profiles that mount nothing there."""
    mounts = {profile: _mounts(deployment.facts.get(profile, {})) for profile in deployment.profiles}
    for section, option in _SHARED:
        folder = _local_folder(settings.get(section, {}).get(option, ""))
        lacking = [profile for profile, paths in mounts.items() if not any(is_inside(folder, path) for path in paths)]
        if folder and lacking:
            yield (
                f"{label(section, option)} is the folder {folder}, and each container has its own, with its own files "
                f"(profiles without a mount there: {', '.join(lacking)})"
            )


def _mounts(facts: Mapping[str, object]) -> Collection[str]:
    volumes = facts.get("volumes")
    return list(volumes) if isinstance(volumes, Mapping) else []


def _local_folder(value: str) -> str:
    """Return the folder of a local URL or path; empty for another one."""
    try:
        url = urlsplit(value)
        return normal_path(unquote(url.path)) if url.scheme.lower() in _LOCAL and url.path else ""
    except ValueError:
        return ""
