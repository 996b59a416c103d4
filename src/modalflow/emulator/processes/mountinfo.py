"""The mounts of a process, parsed from ``/proc/<pid>/mountinfo`` (proc(5)).

Owns the format of the file. Paths may hold any byte: octal escapes are decoded, and bytes outside UTF-8 are
represented as in Python's file names.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

_OCTAL = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True)
class Mounted:
    """One mount."""

    mount_id: str
    device: str
    part: str
    """The mounted path inside its file system."""
    point: str
    kind: str
    source: str


def mounts(process: int | str = "self") -> list[Mounted]:
    """Return the mounts of a process, outer mounts first; OSError if the process has ended."""
    lines = Path(f"/proc/{process}/mountinfo").read_bytes().splitlines()
    return [_parsed(line) for line in lines]


def _parsed(line: bytes) -> Mounted:
    fields = [os.fsdecode(_OCTAL.sub(_byte, field)) for field in line.split(b" ")]
    # Optional fields come before the hyphen.
    kind, source = fields[fields.index("-", 6) + 1 :][:2]
    return Mounted(fields[0], fields[2], fields[3], fields[4], kind, source)


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes([int(found[1], 8)])
