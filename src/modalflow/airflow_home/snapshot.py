"""A home snapshot: the settings and files of an Airflow host as plain data, named by its content.

Two schedulers with equal configuration have one id. A reader with an id can check everything against it, except the
secret settings: they are encrypted, and are checked when they are decrypted (``sealing``). Does no I/O.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

from modalflow.bundles.manifest import NOTHING, File, Manifest, digest
from modalflow.errors import BundleError, HomeError
from modalflow.support.described import describe

#: Increased when an older reader could misread a snapshot.
FORMAT = 1

#: Section → option → value.
Settings = Mapping[str, Mapping[str, str]]

_ID = re.compile(r"[0-9a-f]{64}")


def is_home_id(text: str) -> bool:
    """Return whether a text has the form of a snapshot's id."""
    return _ID.fullmatch(text) is not None


@dataclass(frozen=True)
class SealedSettings:
    """Settings for the containers of a worker app alone. Encrypting the same settings again gives another text, but the
    same fingerprint."""

    key_id: str
    """The id of the key for which they are encrypted."""
    fingerprint: str
    """A salted hash of the settings."""
    wrapped_key: str = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True)
class HomeSnapshot:
    """The configuration of an Airflow host for containers."""

    settings: Settings
    files: Manifest = NOTHING
    """Paths below the home, such as ``plugins/acme.py``."""
    sealed: SealedSettings | None = None

    @cached_property
    def id(self) -> str:
        """Return the hash of its content. It does not depend on the text of the sealed settings."""
        sealed = None if self.sealed is None else [self.sealed.key_id, self.sealed.fingerprint]
        return digest(canonical([FORMAT, _ordered(self.settings), self.files.version, sealed]))

    def to_json(self) -> bytes:
        """Return it as bytes."""
        wire = {
            "format": FORMAT,
            "settings": self.settings,
            "files": self.files.content.decode(),
            "sealed": None if self.sealed is None else asdict(self.sealed),
        }
        return canonical(wire)

    @classmethod
    def read(cls, content: bytes, id: str) -> HomeSnapshot:
        """Read the result of ``to_json`` for an id; raise HomeError if it is anything else."""
        try:
            wire: Any = json.loads(content)
            if wire["format"] != FORMAT:
                raise HomeError(
                    f"The settings of the Airflow host (home {id}) were published in format {wire['format']!r}, and "
                    f"this worker reads {FORMAT}. Use the same modalflow on both sides: `modalflow deploy`."
                )
            files = wire["files"].encode()
            sealed = wire["sealed"]
            snapshot = cls(
                checked_settings(wire["settings"]),
                Manifest.read(files, digest(files)),
                None if sealed is None else SealedSettings(**{str(name): _text(text) for name, text in sealed.items()}),
            )
        except (AttributeError, BundleError, KeyError, RecursionError, TypeError, ValueError) as error:
            raise HomeError(
                f"The settings of the Airflow host (home {id}) are malformed: {describe(error)}. Restart the scheduler "
                "to publish them again."
            ) from error
        if snapshot.id != id:
            raise HomeError(
                f"The settings of the Airflow host (home {id}) have another content than the scheduler published. "
                "Restart the scheduler to publish them again, and find out who writes to the logs Volume."
            )
        return snapshot


def canonical(value: object) -> bytes:
    """Return JSON that is equal for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def checked_settings(wire: Any) -> dict[str, dict[str, str]]:
    """Return settings from JSON; raise TypeError or ValueError for anything else."""
    if not isinstance(wire, dict):
        raise TypeError("the settings are not an object")
    return {
        _name(section): {_name(option): _text(value) for option, value in options.items()}
        for section, options in wire.items()
    }


def pack(manifest: Manifest, contents: Mapping[str, bytes]) -> bytes:
    """Return the contents of all files as one text of bytes, in the order of their paths."""
    return b"".join(contents[path] for path in sorted(manifest.files))


def unpack(manifest: Manifest, packed: bytes) -> dict[str, bytes]:
    """Return the contents of files, by path; raise ValueError if they are not those of the manifest."""
    contents, begin = {}, 0
    for path, file in sorted(manifest.files.items()):
        contents[path] = packed[begin : begin + file.size]
        begin += file.size
        if digest(contents[path]) != file.sha256:
            raise ValueError(f"{path} has another content")
    return contents


def manifest_of(contents: Mapping[str, bytes], executables: Iterable[str] = ()) -> Manifest:
    """Return the manifest of some files; ``executables`` lists the executable ones."""
    can_run = frozenset(executables)
    return Manifest({path: File(digest(content), len(content), path in can_run) for path, content in contents.items()})


def _ordered(settings: Settings) -> object:
    return {section: dict(options) for section, options in settings.items() if options}


def _name(value: object) -> str:
    name = _text(value)
    if not name or "\0" in name or "\n" in name:
        raise ValueError(f"{name!r} is no name of a section or an option")
    return name


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {type(value).__name__}")
    return value
