"""What `modalflow doctor` finds: one line each, with the way to mend it where something is wrong."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from modalflow.support.text import ID, REASON, one_line

_T = TypeVar("_T")


class Status(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    """It works, and may surprise somebody."""
    FAIL = "fail"
    SKIP = "skip"
    """It was not done; the detail says why."""


@dataclass(frozen=True)
class Finding:
    """One check and how it ended. Holds no token: the parts are read aloud."""

    name: str
    status: Status
    detail: str
    mend: str = ""
    seconds: float | None = None
    """How long what was checked took, where that is of interest."""

    def to_wire(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"status": self.status.value}


def ok(name: str, detail: str, seconds: float | None = None) -> Finding:
    return _finding(name, Status.OK, detail, seconds=seconds)


def warn(name: str, detail: str, mend: str) -> Finding:
    return _finding(name, Status.WARN, detail, mend)


def fail(name: str, detail: str, mend: str) -> Finding:
    return _finding(name, Status.FAIL, detail, mend)


def skip(name: str, why: str) -> Finding:
    return _finding(name, Status.SKIP, why)


def _finding(name: str, status: Status, detail: str, mend: str = "", seconds: float | None = None) -> Finding:
    """A finding of single lines, whatever was found: much of it is what others reported."""
    return Finding(one_line(name, ID), status, one_line(detail, REASON), one_line(mend, REASON), seconds)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """What a call returns, and its seconds."""
    began = time.monotonic()
    return work(), time.monotonic() - began
