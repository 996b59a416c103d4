"""The comparison of an image's packages with Airflow's dependencies on the Airflow host.

Runs in the image while it is built, before Airflow is installed. So it may import nothing outside the standard library
for certain. Reads the metadata of packages, and imports none of them.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from typing import Any

#: The programs that record in REQUESTED what a user named; conda's packages have this file without a request.
_INSTALLERS = frozenset({"pip", "uv"})

#: The parser of requirements, on its own or within pip.
_PARSERS = ("packaging.requirements", "pip._vendor.packaging.requirements")


class PackageConflictError(Exception):
    """An image asks for another version of a package than the Airflow host has. The text names both, in one line."""


def check_packages(host: Mapping[str, str], preinstalled: Mapping[str, Sequence[str]]) -> None:
    """Raise PackageConflictError if the host's versions cannot replace those of this image.

    ``host`` has Airflow and its dependencies, name → version. Versions in ``preinstalled`` are Modal's own choice.
    """
    installed = {name: each for name, each in _installed()}
    found = [*_requested(installed, host, preinstalled), *_needed(installed, host)]
    if found:
        raise PackageConflictError("; ".join(found))


def _installed() -> Iterator[tuple[str, metadata.Distribution]]:
    seen = set()
    for distribution in metadata.distributions():
        name = re.sub(r"[-_.]+", "-", str(distribution.metadata["Name"] or "")).lower()
        if name and name not in seen:
            seen.add(name)
            yield name, distribution


def _requested(
    installed: Mapping[str, metadata.Distribution], host: Mapping[str, str], preinstalled: Mapping[str, Sequence[str]]
) -> Iterator[str]:
    for name, version in sorted(host.items()):
        there = installed.get(name)
        if there is None or _public(there.version) == version or there.version in preinstalled.get(name, ()):
            continue
        by_user = there.read_text("REQUESTED") is not None
        if by_user and (there.read_text("INSTALLER") or "").strip() in _INSTALLERS:
            yield f"the image asks for {name} {there.version}, the Airflow host has {version}"


def _needed(installed: Mapping[str, metadata.Distribution], host: Mapping[str, str]) -> Iterator[str]:
    """Yield packages that work with the versions of this image, and would not with the host's."""
    parse = _parser()
    if parse is None:
        return
    for name, distribution in sorted(installed.items()):
        if name in host:
            continue
        for text in distribution.requires or ():
            requirement = parse(text)
            wanted = re.sub(r"[-_.]+", "-", requirement.name).lower()
            there = installed.get(wanted)
            if there is None or wanted not in host or (requirement.marker and not requirement.marker.evaluate()):
                continue
            fits = requirement.specifier.contains
            if fits(there.version, prereleases=True) and not fits(host[wanted], prereleases=True):
                yield (
                    f"{name} {distribution.version} in the image requires {wanted}{requirement.specifier} (there is "
                    f"{there.version}), the Airflow host has {host[wanted]}"
                )


def _parser() -> Callable[[str], Any] | None:
    for name in _PARSERS:
        try:
            parser: Callable[[str], Any] = importlib.import_module(name).Requirement
            return parser
        except ImportError:
            continue
    return None


def _public(version: str) -> str:
    """Return a version without the label of a private build, such as ``+cu124``."""
    return version.partition("+")[0]
