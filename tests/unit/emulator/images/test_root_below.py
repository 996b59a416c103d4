"""The root file system below images: folders and archives of images."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from modalflow.emulator.images.building.root_below import BaseError, root_below
from modalflow.emulator.options import Options
from modalflow.emulator.state.state_dir import StateDir


def archive(files: dict[str, str]) -> bytes:
    """A layer with files; a name with a slash at its end is a folder."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for name, text in files.items():
            entry = tarfile.TarInfo(name.rstrip("/"))
            entry.mode = 0o755 if name.endswith("/") else 0o644
            entry.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return made.getvalue()


LAYERS = (
    archive(
        {"usr/": "", "usr/old": "old", "etc/": "", "etc/kept": "kept", "var/": "", "var/a": "a", "var/b": "b"}
        | {".hidden/": "", ".hidden/old": "old"}
    ),
    archive(
        {"usr/.wh.old": "", "usr/new": "new", "var/": "", "var/.wh..wh..opq": "", "var/c": "c"}
        | {"./.hidden/": "", "./.hidden/.wh.old": ""}
    ),
)
SETTINGS = {"config": {"Env": ["PATH=/opt/bin:/usr/bin", "A=b=c"]}}


def layout_of(folder: Path) -> Path:
    """An OCI layout of the layers."""

    def blob(content: bytes | dict[str, Any]) -> dict[str, str]:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        digest = hashlib.sha256(data).hexdigest()
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (folder / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}"}

    manifest = blob({"config": blob(SETTINGS), "layers": [blob(layer) for layer in LAYERS]})
    (folder / "index.json").write_text(json.dumps({"manifests": [manifest]}))
    return folder


def saved_by_docker(path: Path) -> Path:
    """An archive as `docker save` writes it."""
    manifest = [{"Config": "settings.json", "Layers": ["0/layer.tar", "1/layer.tar"]}]
    with tarfile.open(path, "w") as tar:
        parts = {"manifest.json": json.dumps(manifest).encode(), "settings.json": json.dumps(SETTINGS).encode()}
        parts |= {f"{number}/layer.tar": layer for number, layer in enumerate(LAYERS)}
        for name, data in parts.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


@pytest.mark.parametrize("kind", ["layout", "docker"])
def test_an_archive_is_unpacked_once(tmp_path: Path, kind: str) -> None:
    """Layers lie over each other, with removed files removed; the settings' variables come along."""
    (tmp_path / "source").mkdir()
    source = layout_of(tmp_path / "source") if kind == "layout" else saved_by_docker(tmp_path / "saved.tar")
    state = StateDir(tmp_path / "state")
    try:
        found = root_below(f"oci:{source}", state)
        files = {str(path.relative_to(found.path)) for path in found.path.rglob("*") if path.is_file()}
        assert files == {"usr/new", "etc/kept", "var/c"}
        assert found.variables == {"PATH": "/opt/bin:/usr/bin", "A": "b=c"}
        assert found.search_path == "/opt/bin:/usr/bin"
        marker = found.path / "marker"
        marker.touch()
        assert root_below(f"oci:{source}", state) == found and marker.exists()
        assert [path.name for path in (state.root / "bases").iterdir()] == [found.path.name]
    finally:
        state.close()


def test_what_is_no_base_is_refused(tmp_path: Path) -> None:
    """The option is checked before a start, an archive when it is unpacked."""
    with pytest.raises(ValueError, match="expected a folder with a root file system"):
        Options(base=str(tmp_path))
    with pytest.raises(ValueError, match="there is no"):
        Options(base=f"oci:{tmp_path}/nothing")
    (tmp_path / "usr").mkdir()
    with pytest.raises(ValueError, match="exclude each other"):
        Options(base=str(tmp_path), list_image_commands=True)
    (tmp_path / "broken.tar").write_text("no archive")
    state = StateDir(tmp_path / "state")
    try:
        with pytest.raises(BaseError, match="cannot be unpacked as an image"):
            root_below(f"oci:{tmp_path}/broken.tar", state)
        assert not list((state.root / "bases").iterdir())
    finally:
        state.close()
