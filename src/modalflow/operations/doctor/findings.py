"""The findings of `modalflow doctor`: one line each, with a fix for every problem."""

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
    """It works, but may surprise users."""
    FAIL = "fail"
    SKIP = "skip"
    """The check was skipped; the detail has the reason."""


@dataclass(frozen=True)
class Finding:
    """One check and how it ended. Holds no token: the parts are read aloud."""

    name: str
    status: Status
    detail: str
    mend: str = ""
    seconds: float | None = None
    """Duration of the checked operation, if it is of interest."""

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
    """Return a finding of single lines, for any text: much of it comes from other programs."""
    return Finding(one_line(name, ID), status, one_line(detail, REASON), one_line(mend, REASON), seconds)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """Return the result of a call, and its seconds."""
    began = time.monotonic()
    return work(), time.monotonic() - began
