"""The root file system below images: this machine's own, a folder, or an archive of an image.

Owns the option ``--base`` and the unpacked archives, one folder for each content.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.emulator.state.state_dir import StateDir

HOST = Path("/")

#: The variable PATH of a root without one of its own, as in Docker.
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

_OCI = "oci:"
_DRAFT = "draft-"
_REMOVED, _OPAQUE = ".wh.", ".wh..wh..opq"


class BaseError(ValueError):
    """The error for a base that cannot be used. The text says why."""


@dataclass(frozen=True)
class RootBelow:
    """A root file system, and the settings that came with it."""

    path: Path = HOST
    identity: str = ""
    """What distinguishes images over it from those over others; empty for this machine's root."""
    variables: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_host(self) -> bool:
        return self.path == HOST

    @property
    def search_path(self) -> str:
        """The PATH of programs in it."""
        host = os.environ.get("PATH", os.defpath)
        return host if self.is_host else self.variables.get("PATH", DEFAULT_PATH)


def check(option: str) -> None:
    """Raise BaseError if ``--base`` names nothing usable."""
    path = Path(option.removeprefix(_OCI)).expanduser()
    if option.startswith(_OCI):
        if not path.exists():
            raise BaseError(f"base is {option!r}, but there is no {path}; expected an OCI layout or an archive of one")
    elif not (path / "usr").is_dir():
        raise BaseError(
            f"base is {option!r}; expected a folder with a root file system, e.g. from debootstrap, or oci:PATH"
        )


def root_below(option: str | None, state: StateDir) -> RootBelow:
    """Return the root of the option, unpacked if needed; BaseError if it cannot be read."""
    if option is None:
        return RootBelow()
    check(option)
    path = Path(option.removeprefix(_OCI)).expanduser().absolute()
    if not option.startswith(_OCI):
        found = path.stat()
        return RootBelow(path, f"{path}:{found.st_ino}:{found.st_mtime_ns}")
    folder = state.folder("bases")
    for unfinished in folder.glob(f"{_DRAFT}*"):
        shutil.rmtree(unfinished)
    try:
        return _unpacked(path, folder)
    except (OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
        raise BaseError(f"{path} cannot be unpacked as an image: {error!r}") from error


def _unpacked(source: Path, folder: Path) -> RootBelow:
    with tempfile.TemporaryDirectory(prefix=_DRAFT, dir=folder) as name:
        work = Path(name)
        if source.is_dir():
            layout = source
        else:
            layout = work / "layout"
            layout.mkdir()
            _extract(source, layout)
        layers, settings = _of_docker(layout) if (layout / "manifest.json").is_file() else _of_oci(layout)
        digest = hashlib.sha256()
        for layer in layers:
            with layer.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        identity = digest.hexdigest()[:32]
        target = folder / identity
        if not target.is_dir():
            made = work / "root"
            made.mkdir(mode=0o755)
            for layer in layers:
                _apply(layer, made)
            made.rename(target)
    environment = dict(pair.split("=", 1) for pair in settings.get("Env") or ())
    return RootBelow(target, identity, environment)


def _of_docker(layout: Path) -> tuple[list[Path], dict[str, Any]]:
    (manifest, *_) = json.loads((layout / "manifest.json").read_text())
    settings = json.loads((layout / manifest["Config"]).read_text()).get("config") or {}
    return [_inside(layout, name) for name in manifest["Layers"]], settings


def _of_oci(layout: Path) -> tuple[list[Path], dict[str, Any]]:
    document = json.loads((layout / "index.json").read_text())
    while "manifests" in document:
        entries = document["manifests"]
        here = [each for each in entries if (each.get("platform") or {}).get("architecture") == _architecture()]
        document = json.loads(_blob(layout, (here or entries)[0]["digest"]).read_text())
    settings = json.loads(_blob(layout, document["config"]["digest"]).read_text()).get("config") or {}
    return [_blob(layout, layer["digest"]) for layer in document["layers"]], settings


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _blob(layout: Path, digest: str) -> Path:
    return _inside(layout, f"blobs/{digest.replace(':', '/')}")


def _inside(layout: Path, name: str) -> Path:
    path = (layout / name).resolve()
    if not path.is_relative_to(layout.resolve()):
        raise ValueError(f"{name!r} leads out of the archive")
    return path


def _apply(layer: Path, root: Path) -> None:
    """Apply a layer of an image: remove what it marks as removed, and add its files."""
    listed = subprocess.run(["tar", "-tf", str(layer)], capture_output=True, text=True, check=True).stdout.splitlines()
    for entry in listed:
        folder, _, name = entry.rstrip("/").rpartition("/")
        if not name.startswith(_REMOVED):
            continue
        place = _inside(root, folder.removeprefix("./").lstrip("/"))
        for path in place.iterdir() if name == _OPAQUE and place.is_dir() else [place / name.removeprefix(_REMOVED)]:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    _extract(layer, root, f"--exclude={_REMOVED}*")


def _extract(archive: Path, folder: Path, *options: str) -> None:
    command = ["tar", "-xpf", str(archive), "-C", str(folder), "--numeric-owner", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ValueError(f"tar: {done.stderr.strip()[-300:]}")
