"""Resolve symlinks inside a Volume as the kernel does in a container.

Pure: asks what stands at a path. Only relative links can be followed from outside, because no path outside of the
volume means anything here; which status each refusal has is inferred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from grpclib import GRPCError, Status

#: Linux's own limit (``MAXSYMLINKS``).
MAX_LINKS_FOLLOWED = 40


class ResolvedPath(Protocol):
    """What stands at a path."""

    @property
    def is_directory(self) -> bool: ...

    @property
    def target(self) -> str:
        """The target of a link; otherwise empty."""


@dataclass(frozen=True)
class _Link:
    path: str
    target: str

    def __str__(self) -> str:
        return f"the link {self.path!r} points at {self.target!r}"


@dataclass(frozen=True)
class _Step:
    """A name to go on with, and the link that it comes from; None if it is the caller's."""

    name: str
    link: _Link | None = None


def followed(
    get: Callable[[str], ResolvedPath | None], path: str, *, last: bool = True, may_be_missing: bool = False
) -> str:
    """Return the path without links on the way to it.

    The ``last`` name is followed, too, unless that is False. What the caller names need not be there if it
    ``may_be_missing``; what a link points at has to. NOT_FOUND for a link that leads nowhere or out of the volume,
    INVALID_ARGUMENT for one that never ends.
    """
    steps = [_Step(name) for name in _names(path)][::-1]
    done: list[str] = []
    links = 0
    while steps:
        step = steps.pop()
        if step.name == "..":
            if not done:
                raise _not_found(path, f"{step.link}, which is outside of the Volume")
            done.pop()
            continue
        here = "/".join([*done, step.name])
        standing = get(here)
        if standing is None:
            if may_be_missing and step.link is None:
                return "/".join([here, *(left.name for left in reversed(steps))])
            why = f"{step.link}, and {here!r} does not exist" if step.link is not None else ""
            raise _not_found(path, why)
        if standing.target and (steps or last):
            link = _Link(here, standing.target)
            links += 1
            if links > MAX_LINKS_FOLLOWED:
                raise GRPCError(Status.INVALID_ARGUMENT, f"Too many levels of symbolic links: {path!r} ({link})")
            if standing.target.startswith("/"):
                raise _not_found(
                    path,
                    f"{link}, which only a container can follow that mounts the Volume there. "
                    "A link with a relative target can be followed from everywhere",
                )
            steps += [_Step(name, link) for name in _names(standing.target)][::-1]
            continue
        if steps and not standing.is_directory and not may_be_missing:
            raise _not_found(path, f"{here!r} is not a directory")
        done.append(step.name)
    return "/".join(done)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _not_found(path: str, why: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, f"No such file or directory: {path!r}" + (f": {why}" if why else ""))
