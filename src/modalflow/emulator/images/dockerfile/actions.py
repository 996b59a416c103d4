"""What steps of an image do besides files and commands: its Python, and uv's program.

Owns these actions as values; command_builder.py executes them.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Begin:
    """The Python of the image: of a minor version, or, if it is empty, the one in the root below."""

    series: str


@dataclass(frozen=True)
class ProvideUv:
    """The program uv, at a path or in a folder of the image."""

    path: str
