"""The findings of `modalflow doctor`: one line each, with a fix for every problem."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
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
    advice: str = ""
    seconds: float | None = None
    """Duration of the checked operation, if it is of interest."""
    rows: tuple[Mapping[str, Any], ...] = ()
    """The details for programs, for a finding that sums up a table: objects of plain texts."""

    def to_wire(self) -> dict[str, Any]:
        # Earlier versions call the advice "mend".
        return dataclasses.asdict(self) | {"status": self.status.value, "mend": self.advice}


def ok(name: str, detail: str, seconds: float | None = None) -> Finding:
    return _finding(name, Status.OK, detail, seconds=seconds)


def warn(name: str, detail: str, advice: str) -> Finding:
    return _finding(name, Status.WARN, detail, advice)


def fail(name: str, detail: str, advice: str) -> Finding:
    return _finding(name, Status.FAIL, detail, advice)


def skip(name: str, why: str) -> Finding:
    return _finding(name, Status.SKIP, why)


def with_rows(finding: Finding, rows: Iterable[Mapping[str, Any]]) -> Finding:
    """Return a finding with the table that it sums up."""
    return dataclasses.replace(finding, rows=tuple(rows))


def _finding(name: str, status: Status, detail: str, advice: str = "", seconds: float | None = None) -> Finding:
    """Return a finding of single lines, for any text: much of it comes from other programs."""
    return Finding(one_line(name, ID), status, one_line(detail, REASON), one_line(advice, REASON), seconds)


def timed(work: Callable[[], _T]) -> tuple[_T, float]:
    """Return the result of a call, and its seconds."""
    began = time.monotonic()
    return work(), time.monotonic() - began
