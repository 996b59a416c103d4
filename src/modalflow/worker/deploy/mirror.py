"""The packages of this environment as an image can install them: names with exact versions.

Owns which packages cannot be installed elsewhere, and the advice for each. Installs nothing and queries no index.
"""

from __future__ import annotations

import json
import site
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from modalflow.support.packages import canonical, named_package

#: Packages that are added to every image as source, or that are tools of this environment alone.
_NEVER = frozenset({"modalflow", "pip", "setuptools", "wheel", "uv", "pkg-resources"})

_AIRFLOW = "apache-airflow"
_CORE = "apache-airflow-core"


@dataclass(frozen=True)
class Mirror:
    """The packages of an environment that an image can have."""

    packages: Mapping[str, str] = field(default_factory=dict)
    """Name → version."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Name → why it is not in the image, and how to add it."""

    @property
    def airflow(self) -> dict[str, str]:
        """Return the packages of Airflow itself and of its providers."""
        return {name: version for name, version in self.packages.items() if name.startswith(_AIRFLOW)}

    @property
    def airflow_version(self) -> str:
        """Return the version of Airflow; empty if it is not installed."""
        return self.packages.get(_CORE, "")


def pins(packages: Mapping[str, str]) -> list[str]:
    """Return the packages as requirements, in the order of their names."""
    return [f"{name}=={version}" for name, version in sorted(packages.items())]


def mirror_environment(distributions: Iterable[metadata.Distribution] | None = None) -> Mirror:
    """Return what is installed here. If a package is installed twice, the one that Python imports counts."""
    packages: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for distribution in metadata.distributions() if distributions is None else distributions:
        name = canonical(str(distribution.metadata["Name"] or ""))
        if not name or name in _NEVER or name in packages or name in left_out:
            continue
        why = _obstacle(distribution)
        if why:
            left_out[name] = why
        else:
            packages[name] = distribution.version
    return Mirror(packages, left_out)


def names_modalflow(requirements: Path) -> str:
    """Return the line of a requirements file that asks for a package named modalflow; empty if none does."""
    lines = map(str.strip, requirements.read_text(errors="replace").splitlines())
    return next((line for line in lines if named_package(line) == "modalflow"), "")


def _obstacle(distribution: metadata.Distribution) -> str:
    """Return why a package cannot be installed by its name and version; empty if it can."""
    if not distribution.version:
        return "it has no version; reinstall it"
    if _is_the_systems(distribution):
        return "the system's package manager installed it; install it with pip here, or add it to an image of your own"
    origin = _origin(distribution)
    url = str(origin.get("url") or "")
    if not url:
        return ""
    if "vcs_info" in origin:
        return f"it was installed from {url}; publish it, or add it to an image of your own: pip_install('git+…')"
    if url.startswith("file:"):
        kind = "is editable" if "editable" in str(origin.get("dir_info")) else "was installed"
        return (
            f"it {kind} from {url.removeprefix('file://')}; publish it, or add it to an image of your own: "
            "modal.Image.add_local_python_source(…, copy=True)"
        )
    return f"it was installed from {url}; publish it, or add it to an image of your own: pip_install({url!r})"


def _origin(distribution: metadata.Distribution) -> dict[str, object]:
    """Return the record (PEP 610) of a package that did not come from an index."""
    try:
        found = json.loads(distribution.read_text("direct_url.json") or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _is_the_systems(distribution: metadata.Distribution) -> bool:
    """Return whether a package is in the folder of Debian's packages."""
    place = Path(str(distribution.locate_file("")))
    return place.name == "dist-packages" and place not in {Path(each) for each in _own_places()}


def _own_places() -> list[str]:
    return [sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), site.getusersitepackages()]
