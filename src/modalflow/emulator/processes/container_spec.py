"""What the control plane tells the template of a container that it shall start.

Owns the request and its way through a file; imports nothing that a new process would not have at once, because the
template holds it for every container. launching.py fills it in, rooms.py and becoming.py carry it out.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: Where the runtime expects volumes; mount paths are symlinks to here, as on Modal.
VOLUMES = "/__modal/volumes"


class Isolation(enum.Enum):
    """How containers are kept apart."""

    ROOT = "root"
    USER = "user"
    PLAIN = "plain"


@dataclass(frozen=True)
class VolumeView:
    """A volume as one container sees it."""

    volume_id: str
    view: Path
    """The directory with the volume's files, on the host; with ``layers``, the one with ``upper`` and ``work``."""
    mount_path: str
    sub_path: str = ""
    read_only: bool = False
    layers: tuple[Path, ...] = ()
    """Directories of one folder that an overlay mount shows below what the container writes, the uppermost first."""


@dataclass(frozen=True)
class Room:
    """All that a container's file system is made of. Every path of the host in it is absolute and without symlinks."""

    folder: Path
    """A folder of the container's own, on the host."""
    layer: Path
    """A tree of files that lies over the host's root."""
    hidden: Path
    """The state folder: the container finds it empty but for what is in ``shown`` and ``lent``."""
    also_hidden: tuple[Path, ...] = ()
    """Further folders of the control plane's, elsewhere."""
    shown: tuple[Path, ...] = ()
    """Folders and files of the host that the container sees at the same path as they are, not as private copies:
    its arguments, bytecode, the Python environment of its image. They may lie in ``hidden``."""
    lent: tuple[Path, ...] = ()
    """The same, but only to be read: an image's environment, which others have too."""
    volumes: tuple[VolumeView, ...] = ()
    cwd: str = "/root"
    kept: Path | None = None
    """A folder of the host for what the container wrote into its private layer, copied there when it ends."""


@dataclass(frozen=True)
class Start:
    """One container to start.

    A container's process is a fork of the template, which has imported Modal's runtime, wherever it then is as a
    new process would be: none of the folders that come first on its path has a module of a name that the template has
    imported, and no variable differs that was read while it imported them or that only a starting interpreter reads.
    Else, and with ``fresh``, it is a new interpreter.

    An image with packages of its own gives ``python`` and ``site``. ``python``, run by itself in the container (the
    folder must be in ``room.shown`` if it is below the state folder), must find the image's packages and, behind
    them, the host's (Modal's SDK with all it needs is there): a new interpreter, or a subprocess of a fork, gets no
    further help. ``site`` are the folders where the image's packages lie, in order: a fork puts them before the host's
    packages and behind the app's own files, and has ``sys.executable`` and ``sys.prefix`` point to ``python``.
    """

    room: Room
    variables: dict[str, str]
    """The whole environment of the process."""
    python: Path | None = None
    site: tuple[Path, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    """Resource limits by their names in the resource module, e.g. ``RLIMIT_DATA``: soft and hard alike."""
    fresh: bool = False
    """A new interpreter, even where a fork would do."""
    program: tuple[str, ...] = ()
    """A program with its arguments to run in the room, instead of Modal's runtime."""

    def dumps(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), default=str).encode()

    @classmethod
    def loads(cls, data: bytes) -> Start:
        said = json.loads(data)
        python = said.pop("python")
        return cls(
            **{
                **said,
                "room": _room(said["room"]),
                "python": None if python is None else Path(python),
                "site": tuple(map(Path, said["site"])),
                "program": tuple(said["program"]),
            }
        )


def _room(said: dict[str, Any]) -> Room:
    return Room(
        folder=Path(said["folder"]),
        layer=Path(said["layer"]),
        hidden=Path(said["hidden"]),
        also_hidden=tuple(map(Path, said["also_hidden"])),
        shown=tuple(map(Path, said["shown"])),
        lent=tuple(map(Path, said["lent"])),
        volumes=tuple(
            VolumeView(**{**volume, "view": Path(volume["view"]), "layers": tuple(map(Path, volume["layers"]))})
            for volume in said["volumes"]
        ),
        cwd=said["cwd"],
        kept=None if said["kept"] is None else Path(said["kept"]),
    )
