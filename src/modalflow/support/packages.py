"""The names and versions of installed packages, in the form of package indexes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata


def canonical(name: str) -> str:
    """Return a package's name in the form that indexes use."""
    return re.sub(r"[-_.]+", "-", name).lower()


def named_package(requirement: str) -> str:
    """Return the package in a line of a requirements file; not a package's name for an option or a URL."""
    return canonical(re.split(r"[^\w.-]", requirement.strip(), maxsplit=1)[0])


def installed_packages(distributions: Iterable[metadata.Distribution] | None = None) -> dict[str, str]:
    """Return this environment's packages: name → version. Of two, the imported one counts.

    A package without a readable name is left out.
    """
    found: dict[str, str] = {}
    for distribution in metadata.distributions() if distributions is None else distributions:
        try:
            name, version = canonical(str(distribution.metadata["Name"] or "")), str(distribution.version or "")
        except (OSError, ValueError, KeyError):
            # A damaged package is a finding of other checks.
            continue
        if name and version:
            found.setdefault(name, version)
    return found
