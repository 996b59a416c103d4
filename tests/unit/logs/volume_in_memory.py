"""A Volume with usage records, in memory."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from types import SimpleNamespace
from typing import Any

from modal import exception


class Kind(Enum):
    FILE = 1
    DIRECTORY = 2


class Volume:
    """A Volume with the two calls that are used, each counted."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.mtimes: dict[str, int] = {}
        self.calls: list[str] = []

    def append(self, path: str, content: bytes) -> None:
        path = f"modalflow-usage/{path}"
        self.files[path] = self.files.get(path, b"") + content
        self.mtimes[path] = len(self.mtimes)

    def listdir(self, path: str) -> list[Any]:
        self.calls.append(path)
        below = {name for name in self.files if name.startswith(f"{path}/")}
        if not below:
            raise exception.NotFoundError(path)
        if path == "modalflow-usage":
            days = {name.rpartition("/")[0] for name in below}
            return [SimpleNamespace(path=day, type=Kind.DIRECTORY, size=0, mtime=0) for day in days]
        return [
            SimpleNamespace(path=name, type=Kind.FILE, size=len(self.files[name]), mtime=self.mtimes[name])
            for name in below
        ]

    def read_file(self, path: str) -> Iterator[bytes]:
        self.calls.append(path)
        yield self.files[path]
