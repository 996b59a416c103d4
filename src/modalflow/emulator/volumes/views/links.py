"""Resolve symlinks inside a Volume as the kernel does in a container.

Pure: reads nodes through a function. Only relative links can be followed from outside, because an absolute path means
nothing here. The status of each refusal is inferred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from grpclib import GRPCError, Status

#: Linux's own limit (``MAXSYMLINKS``).
MAX_LINKS_FOLLOWED = 40


class ResolvedPath(Protocol):
    """A path with a known kind."""

    @property
    def is_directory(self) -> bool: ...

    @property
    def target(self) -> str:
        """Return the target of a link; empty for other kinds."""


@dataclass(frozen=True)
class _Link:
    path: str
    target: str

    def __str__(self) -> str:
        return f"the link {self.path!r} points at {self.target!r}"


@dataclass(frozen=True)
class _Step:
    """A name still to be resolved, and its link; None if the name is the caller's."""

    name: str
    link: _Link | None = None


def resolve(
    get: Callable[[str], ResolvedPath | None], path: str, *, last: bool = True, may_be_missing: bool = False
) -> str:
    """Return the path with all links resolved.

    The ``last`` name is followed, too, unless the flag is False. The caller's path need not exist if it
    ``may_be_missing``; a link's target must. NOT_FOUND for a link to a missing path or out of the Volume,
    INVALID_ARGUMENT for an endless one.
    """
    steps = [_Step(name) for name in _names(path)][::-1]
    done: list[str] = []
    links = 0
    while steps:
        step = steps.pop()
        if step.name == ".":
            continue
        if step.name == "..":
            if not done:
                raise _not_found(path, f"{step.link}, outside of the Volume")
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
                    f"{link}, so only a container with the Volume mounted there can follow it. "
                    "A link with a relative target can be followed from everywhere",
                )
            # A final slash or dot stays, because it demands a directory.
            steps += [_Step(name or ".", link) for name in standing.target.split("/")][::-1]
            continue
        if steps and not standing.is_directory and not (may_be_missing and steps[-1].link is None):
            raise _not_found(path, f"{here!r} is not a directory")
        done.append(step.name)
    return "/".join(done)


def _names(path: str) -> list[str]:
    return [name for name in path.split("/") if name not in ("", ".")]


def _not_found(path: str, why: str) -> GRPCError:
    return GRPCError(Status.NOT_FOUND, f"No such file or directory: {path!r}" + (f": {why}" if why else ""))
