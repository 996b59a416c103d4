"""The files of a Volume in memory, with a clock of their own."""

from __future__ import annotations

import time
from collections.abc import Mapping

from modalflow.bundles.files import ListedFile


class MemoryFiles:
    """What ``bundles.files.Files`` promises, and a diary of what was written."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, float]] = {}
        self.written: list[str] = []
        self.offset = 0.0
        """Seconds by which this Volume's clock is ahead."""

    def put(self, contents: Mapping[str, bytes]) -> None:
        for path, content in contents.items():
            self.files[path] = (content, time.time() + self.offset)
            self.written.append(path)

    def read(self, path: str) -> bytes:
        if path not in self.files:
            raise FileNotFoundError(path)
        return self.files[path][0]

    def list(self, folder: str) -> list[ListedFile]:
        return [
            ListedFile(path, len(content), changed_at)
            for path, (content, changed_at) in self.files.items()
            if path.startswith(f"{folder}/")
        ]

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def age(self, seconds: float) -> None:
        """Let all that is there be older."""
        self.files = {path: (content, changed - seconds) for path, (content, changed) in self.files.items()}
