"""The files of a Modal Volume, as the store of DAG versions needs them. Blocks; knows nothing of DAGs."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from modal import exception


@dataclass(frozen=True)
class Entry:
    """A file in a listing."""

    path: str
    """From the root of the Volume."""
    size: int
    changed_at: float
    """Seconds since the epoch."""


class Files(Protocol):
    """A flat view of a tree of files."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        """Write files, and overwrite existing ones. All have arrived at the return."""

    def read(self, path: str) -> bytes:
        """Return a file's content. Raises FileNotFoundError for a missing file."""

    def list(self, folder: str) -> list[Entry]:
        """All files below a folder; none where there is no folder."""

    def remove(self, path: str) -> None:
        """Remove a file. It may be missing."""


class VolumeFiles:
    """The files of a ``modal.Volume``, through the SDK: nothing needs to be mounted."""

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

    def list(self, folder: str) -> list[Entry]:
        try:
            found = self._volume.listdir(folder, recursive=True)
        except (exception.NotFoundError, FileNotFoundError):
            return []
        return [
            Entry(each.path.strip("/"), int(each.size), float(each.mtime)) for each in found if each.type.name == "FILE"
        ]

    def remove(self, path: str) -> None:
        try:
            self._volume.remove_file(path)
        except (exception.NotFoundError, FileNotFoundError):
            return
