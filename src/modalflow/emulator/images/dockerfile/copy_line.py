"""The files of a ``COPY``: which ones of the context, and where in the image.

Owns the patterns and the targets of COPY, as in Docker. Nothing is copied here.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace


class RecipeError(ValueError):
    """The error for a definition without a possible build. The text is the reason."""


@dataclass(frozen=True)
class Source:
    """A file of the build context: by the hash of its content if a client uploaded it, otherwise its path."""

    sha256: str = ""
    data: bytes = b""
    mode: int = 0o644


def with_mode(files: dict[str, Source], flags: Sequence[str]) -> dict[str, Source]:
    """Return the files with the mode of the flag --chmod, if there is one."""
    given = [flag.partition("=")[2] for flag in flags if flag.startswith("--chmod=")]
    if not given or not re.fullmatch(r"[0-7]{3,4}", given[-1]):
        return files
    return {path: replace(source, mode=int(given[-1], 8)) for path, source in files.items()}


def copied(sources: Sequence[str], target: str, context: Mapping[str, Source]) -> dict[str, Source]:
    """Return the files placed by ``COPY sources target``; RecipeError if the context lacks a source.

    A folder's content is copied, not the folder. A target with ``/`` at its end is a folder.
    """
    placed: dict[str, Source] = {}
    for source in sources:
        # Context paths are absolute; the sources of a COPY are relative to the context's root.
        path = posixpath.normpath(f"/{source.lstrip('/')}")
        matches = [path] if path in context or not any(c in path for c in "*?[") else _matching(path, context)
        into = target.endswith(("/", "/.")) or len(sources) > 1 or matches != [path]
        before = len(placed)
        for match in matches:
            if match in context:
                where = posixpath.join(target, posixpath.basename(match)) if into else target
                placed[posixpath.normpath(where)] = context[match]
                continue
            folder = match.rstrip("/") + "/"
            for name in context:
                if name.startswith(folder):
                    placed[posixpath.normpath(posixpath.join(target, name[len(folder) :]))] = context[name]
        if len(placed) == before and path != "/":
            raise RecipeError(f"COPY found no {source!r}: it is not among the files sent for this layer")
    return placed


def _matching(pattern: str, context: Mapping[str, Source]) -> list[str]:
    """Return the files and folders of the context for a pattern; a ``*`` does not match a ``/``."""
    depth = pattern.count("/")
    prefixes = dict.fromkeys("/".join(name.split("/")[: depth + 1]) for name in context)
    parts = pattern.split("/")
    return [
        name
        for name in prefixes
        if len(name.split("/")) == len(parts)
        and all(fnmatch.fnmatchcase(one, part) for one, part in zip(name.split("/"), parts, strict=True))
    ]
