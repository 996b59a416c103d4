"""The files of a Modal Volume, as the store of DAG versions uses them. Blocks; knows nothing of DAGs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modal import exception


@dataclass(frozen=True)
class ListedFile:
    """A file in a listing."""

    path: str
    """Relative to the root of the Volume."""
    size: int
    changed_at: float
    """Seconds since the epoch."""


class Files(Protocol):
    """A flat view of a tree of files."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Write files, replacing existing ones; all are on the Volume when this returns."""

    def read(self, path: str) -> bytes:
        """Return a file's content; raise FileNotFoundError if it does not exist."""

    def list(self, folder: str) -> list[ListedFile]:
        """Return all files below a folder; none if the folder does not exist."""

    def remove(self, path: str) -> None:
        """Remove a file if it exists."""


class VolumeFiles:
    """The files of a ``modal.Volume``, accessed through the SDK, without a mount."""

    def __init__(self, volume: Any) -> None:
        self._volume = volume

    def put(self, contents: Mapping[str, bytes]) -> None:
        if not contents:
            return
        with self._volume.batch_upload(force=True) as batch:
            for path, content in contents.items():
                batch.put_file(io.BytesIO(content), f"/{path}")

    def read(self, path: str) -> bytes:
        try:
            return b"".join(self._volume.read_file(path))
        except exception.NotFoundError as error:
            raise FileNotFoundError(path) from error

    def list(self, folder: str) -> list[ListedFile]:
        try:
            found = self._volume.listdir(folder, recursive=True)
        except (exception.NotFoundError, FileNotFoundError):
            return []
        return [
            ListedFile(each.path.strip("/"), int(each.size), float(each.mtime))
            for each in found
            if each.type.name == "FILE"
        ]

    def remove(self, path: str) -> None:
        try:
            self._volume.remove_file(path)
        except (exception.NotFoundError, FileNotFoundError):
            return
