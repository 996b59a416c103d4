"""Traces of installed packages, as the metadata of Python finds them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any


def installed(
    folder: Path,
    name: str,
    version: str = "1.0",
    *,
    origin: Mapping[str, Any] | None = None,
    requires: Sequence[str] = (),
    files: Mapping[str, str] | None = None,
) -> None:
    """Leave the traces of an installed package; ``files`` are further files of its metadata."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    (info / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {each}" for each in requires), ""]))
    if origin is not None:
        (info / "direct_url.json").write_text(json.dumps(origin))
    for file, text in (files or {}).items():
        (info / file).write_text(text)


def found(folder: Path) -> list[metadata.Distribution]:
    """Return what is installed in a folder."""
    return list(metadata.Distribution.discover(path=[str(folder)]))
