"""The form of numbers and tables on a terminal. No I/O."""

from __future__ import annotations

from collections.abc import Sequence

from modalflow.support.text import one_line


def table(header: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "  ") -> list[str]:
    """Return lines with columns as wide as their widest cell, except the last column. A cell is one line."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    return [
        indent + "  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in [header, *rows]
    ]


def counted(number: int, what: str) -> str:
    """Return a number with its noun: ``1 call``, ``2 calls``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
