"""Reading a log of many parts, from a Volume that does as it is told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, cast

import pytest
from modal import exception

from modalflow.control_plane import ControlPlane
from modalflow.errors import MalformedMessageError
from modalflow.logs import log_volume
from modalflow.logs.log_volume import LogVolume
from modalflow.names import DEPLOYMENT_FILE, Names


class Files:
    """The files of one log, and how often each was downloaded."""

    def __init__(self, **texts: bytes) -> None:
        self.texts = texts
        self.downloads: Counter[str] = Counter()
        self.broken: dict[str, Exception] = {}
        self.gate = threading.Event()
        self.gate.set()

    def listdir(self, path: str) -> list[Any]:
        kind = SimpleNamespace(name="FILE")
        return [SimpleNamespace(path=name, size=len(text), mtime=1, type=kind) for name, text in self.texts.items()]

    def read_file(self, path: str) -> Iterator[bytes]:
        self.downloads[path] += 1
        if path in self.broken:
            self.gate.wait(10)
            raise self.broken[path]
        yield self.texts[path]


def volume_of(files: Files) -> LogVolume:
    volume = LogVolume(ControlPlane(cast(Any, None), None), Names())
    volume.volume = cast(Any, files)
    return volume


def test_what_was_read_is_not_downloaded_again() -> None:
    """Of a log that grows the parts that did not are kept; only the last one is fetched again."""
    files = Files(**{"a.log": b"1\n", "a.log.0001": b"2\n", "a.log.0002": b"3\n"})
    volume = volume_of(files)
    sources, texts = volume.read("log")
    assert (sources, "".join(texts)) == (["modal://modalflow-logs/a.log"], "1\n2\n3\n")
    files.texts["a.log.0002"] += b"4\n"
    assert "".join(volume.read("log")[1]) == "1\n2\n3\n4\n"
    assert files.downloads == {"a.log": 1, "a.log.0001": 1, "a.log.0002": 2}


def test_what_is_kept_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a log that is too long its beginning stays; what nobody looked at for a while makes room."""
    monkeypatch.setattr(log_volume, "KEPT_TEXT", 10)
    files = Files(**{"a.log": b"123456", "a.log.0001": b"123456"})
    volume = volume_of(files)
    for _ in range(3):
        assert len("".join(volume.read("log")[1])) == 12
    assert sorted(files.downloads.values()) == [1, 3]
    monkeypatch.setattr(log_volume, "_IN_USE", 0.0)
    volume.read("log")
    assert sum(files.downloads.values()) > 4


def test_a_part_that_cannot_be_read_costs_what_comes_after_it() -> None:
    """What is before it is shown, and a source says from where on the log is missing, and why."""
    files = Files(**{"a.log": b"1\n", "a.log.0001": b"2\n"})
    files.broken["a.log.0001"] = exception.InternalError("ill")
    sources, texts = volume_of(files).read("log")
    assert texts == ["1\n"]
    assert sources[1:] == ["Volume modalflow-logs: the log from a.log.0001 on could not be read: ill"]


def test_a_slow_volume_costs_what_has_not_come_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks at a log is shown what there is instead of nothing."""
    monkeypatch.setattr(log_volume, "READ_TIMEOUT", 0.2)
    files = Files(**{"a.log": b"1\n", "a.log.0001": b"2\n"})
    files.broken["a.log.0001"] = exception.InternalError("late")
    files.gate.clear()
    try:
        sources, texts = volume_of(files).read("log")
    finally:
        files.gate.set()
    assert texts == ["1\n"] and "did not answer within 0.2 s" in sources[-1]


def test_a_file_that_is_replaced_meanwhile_is_no_error() -> None:
    """Between the look at the folder and the download a file may go."""
    files = Files(**{"a.log": b"1\n", "b.log": b"2\n"})
    files.broken["a.log"] = FileNotFoundError()
    assert "".join(volume_of(files).read("log")[1]) == "2\n"


@pytest.mark.parametrize("content", [b"\xff\xfe{}", b"{", b'["\xed\xb3\xa9"]', b""])
def test_a_deployment_file_of_any_bytes_is_malformed(content: bytes) -> None:
    """A task can write to the logs Volume. What it left there is an error that an executor expects, and no other."""
    with pytest.raises(MalformedMessageError):
        volume_of(Files(**{DEPLOYMENT_FILE: content})).deployment()
