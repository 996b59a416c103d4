"""The versions that Airflow's dependencies have on this host, as constraints for installations into images.

Owns which packages are constrained, and the check of a requirements file against them. Installs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from modalflow.names import OWN_FOLDER
from modalflow.support.packages import canonical
from modalflow.worker.deploy.mirror import Mirror, pins

if TYPE_CHECKING:
    from packaging.requirements import Requirement

#: The constraints in an image.
CONSTRAINTS_PATH = f"{OWN_FOLDER}/constraints.txt"

#: How to resolve a conflict between an image or a requirements file and this host.
ADVICE = "Use the Airflow host's versions there, or install the other versions on the Airflow host and deploy again."


@dataclass(frozen=True)
class Constraints:
    """Airflow, its providers and their dependencies, as they are installed on this host."""

    versions: Mapping[str, str] = field(default_factory=dict)
    """Name → version, without the label of a private build: an index has another build of the same version."""
    unconstrained: Mapping[str, str] = field(default_factory=dict)
    """Name → why the image may get another version."""

    @property
    def text(self) -> str:
        """Return the content of a constraints file."""
        return "".join(f"{line}\n" for line in pins(self.versions))


def airflow_constraints(mirror: Mirror, distributions: Iterable[metadata.Distribution] | None = None) -> Constraints:
    """Return the constraints for images with this host's Airflow.

    They have every package that Airflow or a provider requires, directly or not. Packages that an image cannot get by
    name and version are left out, and so are those that contradict the requirements of Airflow's other packages.
    """
    if not mirror.airflow:
        # Only Airflow brings the parser of requirements along.
        return Constraints()
    installed: dict[str, metadata.Distribution] = {}
    for distribution in metadata.distributions() if distributions is None else distributions:
        installed.setdefault(canonical(str(distribution.metadata["Name"] or "")), distribution)
    required = _required(mirror.airflow, installed)
    versions: dict[str, str] = {}
    unconstrained: dict[str, str] = {}
    for name in required:
        problem = mirror.left_out.get(name) or _contradiction(installed[name], required[name])
        if problem and name not in mirror.airflow:
            unconstrained[name] = problem
        elif name in mirror.packages:
            versions[name] = mirror.packages[name].partition("+")[0]
    return Constraints(versions, unconstrained)


def conflicts(requirements: Path, constraints: Constraints) -> list[str]:
    """Return the contradictions between a requirements file and the constraints: one text for each, naming both."""
    found = []
    for number, requirement in _requirements(requirements):
        name = canonical(requirement.name)
        version = constraints.versions.get(name)
        if version is None or (requirement.marker and not requirement.marker.evaluate()):
            continue
        if requirement.url or not requirement.specifier.contains(version, prereleases=True):
            asked = f"@ {requirement.url}" if requirement.url else str(requirement.specifier)
            found.append(f"line {number} asks for {name} {asked}, the Airflow host has {version}")
    return found


def _required(
    names: Iterable[str], installed: Mapping[str, metadata.Distribution]
) -> dict[str, list[tuple[str, Requirement]]]:
    """Return the installed packages that these require, and these: name → by whom, and the requirement."""
    found: dict[str, list[tuple[str, Requirement]]] = {name: [] for name in names}
    seen: set[tuple[str, str]] = set()
    pending = [(name, "") for name in found]
    while pending:
        name, extra = pending.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        for requirement in _requires(installed[name], extra):
            wanted = canonical(requirement.name)
            if wanted not in installed:
                continue
            found.setdefault(wanted, []).append((name, requirement))
            pending += [(wanted, each) for each in ("", *requirement.extras)]
    return found


def _requires(distribution: metadata.Distribution, extra: str) -> Iterator[Requirement]:
    """Yield the requirements of a package with one of its extras, or without any."""
    for text in distribution.requires or ():
        requirement = _parsed(text)
        if requirement is not None and (requirement.marker is None or requirement.marker.evaluate({"extra": extra})):
            yield requirement


def _contradiction(distribution: metadata.Distribution, required: Iterable[tuple[str, Requirement]]) -> str:
    for by, requirement in required:
        if not requirement.specifier.contains(distribution.version, prereleases=True):
            return f"this host has {distribution.version}, and {by} requires {requirement.specifier}"
    return ""


def _requirements(file: Path) -> Iterator[tuple[int, Requirement]]:
    """Yield the requirements of a file that name a package, each with the number of its line."""
    joined, begun = "", 0
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        begun = begun if joined else number
        joined += line.removesuffix("\\")
        if line.endswith("\\"):
            continue
        # Options of pip, such as --hash, follow a requirement.
        text = re.split(r"\s#|\s--", joined, maxsplit=1)[0].strip()
        joined = ""
        requirement = _parsed(text) if text and not text.startswith(("#", "-")) else None
        if requirement is not None:
            yield begun, requirement


def _parsed(text: str) -> Requirement | None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return Requirement(text)
    except InvalidRequirement:
        # A path or a URL; or a package's own mistake, which installers refuse.
        return None
