"""Mount points of a user's Volumes and buckets: the normal form of a path, and the reserved paths.

Every path from a profile or a task goes through ``normal_path`` and ``check``, so only this module compares spellings.
No I/O; imports nothing slow, because DAG files use it.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, TypeVar

from modalflow.errors import ConfigError
from modalflow.names import LONGEST_NAME, OWN_FOLDER

_T = TypeVar("_T")

#: Longest path in bytes (Linux, PATH_MAX with its end), minus room for files in the mounted folder.
LONGEST_PATH = 4096 - 1024

#: Location of a container's Volumes in Modal's runtime. Their mount paths are links to here.
MODAL_VOLUMES = "/__modal/volumes"

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Reserved:
    """A reserved folder of a container."""

    folder: str
    why: str
    with_inside: bool = True
    """Whether nothing may be mounted inside it either."""


_MODALFLOW = "modalflow keeps logs and DAG files there"
_MODAL = "Modal's runtime is there"
_KERNEL = "the kernel's files are there"
_IMAGE = "the image's programs and libraries are there"

RESERVED: tuple[Reserved, ...] = (
    Reserved(OWN_FOLDER, _MODALFLOW),
    Reserved("/root/modalflow", "modalflow's code is there"),
    Reserved("/__modal", _MODAL),
    Reserved("/pkg", _MODAL),
    *(Reserved(folder, _KERNEL) for folder in ("/proc", "/sys", "/dev")),
    # Modal itself refuses these two (modal/_utils/mount_utils.py), but not paths inside them.
    Reserved("/root", "Modal puts your code there", with_inside=False),
    Reserved("/tmp", "Modal mounts nothing there", with_inside=False),
    *(
        Reserved(folder, _IMAGE, with_inside=False)
        for folder in (
            *("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr/bin", "/usr/lib", "/usr/lib64", "/usr/sbin"),
            *("/usr/local/bin", "/usr/local/lib", "/usr/local/sbin"),
        )
    ),
)

#: The Python of an image, in any version: no mount at it or inside it.
_PYTHON = re.compile(r"(/usr(?:/local)?/lib(?:64)?/python\d[^/]*)(?:/.*)?")

_LISTED = (
    f"Reserved with everything inside: {', '.join(r.folder for r in RESERVED if r.with_inside)}. Reserved themselves: "
    f"/, {', '.join(r.folder for r in RESERVED if not r.with_inside)}"
)


def normal_path(value: object) -> str:
    """Return the one spelling of an absolute path: no doubled or trailing slashes, no ``.`` and no ``..``.

    Raises ValueError, with the reason, for a relative path and for paths impossible in Linux.
    """
    if not isinstance(value, str | PurePath):
        raise ValueError(f"it is of type {type(value).__name__}")
    text = str(value)
    if not text.startswith("/"):
        raise ValueError("it is not absolute")
    if _CONTROL.search(text):
        raise ValueError("it has control characters")
    try:
        encoded = text.encode()
    except UnicodeEncodeError:
        raise ValueError("it has characters outside UTF-8") from None
    if len(encoded) > LONGEST_PATH or any(len(name) > LONGEST_NAME for name in encoded.split(b"/")):
        raise ValueError(f"it is longer than {LONGEST_PATH} bytes, or a name in it longer than {LONGEST_NAME}")
    # POSIX lets two leading slashes mean something else, and so normpath keeps them.
    return "/" + posixpath.normpath(text).lstrip("/")


def is_inside(path: str, folder: str) -> bool:
    """Return whether a path in its normal form is a folder or lies inside it."""
    return folder == "/" or path == folder or path.startswith(f"{folder}/")


def relation(path: str, folder: str) -> str:
    """Return how one path lies to another one, as a verb: ``is``, ``contains`` or ``is inside``; empty if apart."""
    if path == folder:
        return "is"
    if is_inside(folder, path):
        return "contains"
    return "is inside" if is_inside(path, folder) else ""


def conflict(path: str, folders: Iterable[Reserved] = RESERVED) -> str:
    """Return why nothing can be mounted at a path in its normal form; empty if something can."""
    if path == "/":
        return "'/' contains everything"
    for reserved in folders:
        how = relation(path, reserved.folder)
        if how and (reserved.with_inside or how != "is inside"):
            return f"{path!r} {how} {reserved.folder!r}, and {reserved.why}"
    if python := _PYTHON.fullmatch(path):
        return f"{path!r} {relation(path, python[1])} {python[1]!r}, and the image's Python is there"
    return ""


def check(place: str, value: object) -> str:
    """Return the normal form of a valid mount point. Raises ConfigError for another path."""
    where = f"a path in {place}"
    try:
        path = normal_path(value)
    except ValueError as error:
        raise ConfigError(where, value, f"an absolute path, e.g. '/models': {error}") from error
    if problem := conflict(path):
        raise ConfigError(where, value, f"a free path, e.g. '/models': {problem}. {_LISTED}")
    return path


def check_all(place: str, mounted: Mapping[Any, _T]) -> dict[str, _T]:
    """Return the mounts by the normal forms of their paths, sorted. Raises ConfigError as ``check`` does."""
    found: dict[str, _T] = {}
    for value, what in mounted.items():
        path = check(place, value)
        if path in found:
            raise ConfigError(f"a path in {place}", value, f"one mount at each path: there is another one at {path!r}")
        found[path] = what
    return dict(sorted(found.items()))


def hidden(resolved: str, folder: str) -> str:
    """Return the problem of a modalflow folder inside a user's Volume; empty if there is none.

    ``resolved`` is where the folder really is: symbolic links of an image are followed there, and nowhere before.
    """
    if not is_inside(resolved, MODAL_VOLUMES):
        return ""
    return (
        f"{folder} is in a Volume of the profile or of the task ({resolved}): a symbolic link of the image leads from "
        "its mount path to modalflow's own folder. Mount it at another path"
    )
