"""The request to start a container, as the control plane sends it to the template.

Owns the request and its encoding. Imports only what every new process has, because the template holds this module for
all containers. ``launcher`` fills it in; ``rootfs`` and ``exec_runtime`` carry it out.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: The runtime's folder of Volumes; mount paths are symlinks to here, as on Modal.
VOLUMES = "/__modal/volumes"

#: The name of the mount through which a container with a memory snapshot gets its identity and its gateway.
RESTORE_MOUNT = "restored"
RESTORE_FOLDER = f"{VOLUMES}/{RESTORE_MOUNT}"

#: The variable with which Modal's runtime stops at the place of the snapshot.
SNAPSHOT_VARIABLE = "MODAL_ENABLE_SNAP_RESTORE"


class Isolation(enum.Enum):
    """How containers are isolated from each other."""

    ROOT = "root"
    USER = "user"
    PLAIN = "plain"
    GVISOR = "gvisor"


@dataclass(frozen=True)
class VolumeView:
    """A Volume as one container sees it."""

    volume_id: str
    view: Path
    """The directory of the Volume's files on the host; with ``layers``, the directory of ``upper`` and ``work``."""
    mount_path: str
    sub_path: str = ""
    read_only: bool = False
    layers: tuple[Path, ...] = ()
    """Directories of one folder, uppermost first: an overlay mount shows them below the container's own writes."""


@dataclass(frozen=True)
class Layers:
    """The file layers of an image, over a root file system. Only for containers with root's kind of root."""

    lower: tuple[Path, ...] = ()
    """Folders of files, uppermost first, each an upper directory of overlayfs with its marks of removed files."""
    upper: Path | None = None
    """The layer being made: it receives the container's writes, which are otherwise removed with the container."""
    work: Path | None = None
    """An empty folder for overlayfs, on the file system of ``upper``."""
    base: Path = Path("/")
    """The root file system below."""


@dataclass(frozen=True)
class Rootfs:
    """The parts of a container's file system. All host paths are absolute and free of symlinks."""

    folder: Path
    """The container's own folder on the host."""
    layer: Path
    """A tree of files, laid over the host's root."""
    hidden: Path
    """The state folder: empty for the container, except for the paths in ``shown`` and ``lent``."""
    also_hidden: tuple[Path, ...] = ()
    """Other folders of the control plane, outside the state folder."""
    shown: tuple[Path, ...] = ()
    """Host paths that the container shares without a private copy: its arguments, bytecode, the Python environment
    of its image. They may lie in ``hidden``."""
    lent: tuple[Path, ...] = ()
    """As ``shown``, read-only: the environment of an image, which other containers use as well."""
    volumes: tuple[VolumeView, ...] = ()
    cwd: str = "/root"
    kept: Path | None = None
    """A host folder that receives a copy of the container's private layer when the container ends."""
    layers: Layers | None = None
    """An image's file layers, below ``layer``; None: the host's root is directly below it."""


@dataclass(frozen=True)
class Snapshot:
    """The memory snapshot of a container in gVisor: to be taken of it, or to restore it from."""

    folder: Path
    """The host folder of the snapshot; ``rootfs.shown`` must list it."""
    network: str
    """What the container's gateway reaches; a word of ``sandboxes/inside``."""
    exists: bool = False
    """Whether the container is restored from it."""


@dataclass(frozen=True)
class ContainerSpec:
    """One container to start.

    The container is a fork of the template if the fork cannot be distinguished from a new process. The template has
    imported Modal's runtime. Therefore no folder at the front of the container's path may have one of the imported
    modules. No variable may differ that was read during the imports, or is read only when an interpreter starts.
    Otherwise, and with ``fresh``, the container is a new interpreter.

    An image with its own packages gives ``python`` and ``site``. ``python`` must find the image's packages and, after
    them, the host's with Modal's SDK. A new interpreter or a subprocess of a fork gets no other help. If its
    folder is below the state folder, ``rootfs.shown`` must list it. ``site`` lists the folders of the image's packages
    in order: a fork inserts them after the app's own files and before the host's packages, and points
    ``sys.executable`` and ``sys.prefix`` to ``python``.
    """

    rootfs: Rootfs
    variables: dict[str, str]
    """All environment variables of the process."""
    python: Path | None = None
    site: tuple[Path, ...] = ()
    limits: dict[str, int] = field(default_factory=dict)
    """Soft and hard resource limits by their names in the ``resource`` module, e.g. ``RLIMIT_DATA``."""
    fresh: bool = False
    """Start a new interpreter even if a fork would be possible."""
    program: tuple[str, ...] = ()
    """A program and its arguments, run in place of Modal's runtime. PATH of the variables finds it."""
    user: tuple[int, int] = (0, 0)
    """The user and the group that run ``program`` in a container with isolation."""
    own_network: tuple[str, int] | None = None
    """If set, the container has a network of its own with a loopback alone, and a socket that listens at this address
    of it. The request then comes with a connected unix socket that receives the listening one."""
    snapshot: Snapshot | None = None

    def dumps(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), default=str).encode()

    @classmethod
    def loads(cls, data: bytes) -> ContainerSpec:
        fields = json.loads(data)
        python = fields.pop("python")
        own_network = fields.pop("own_network")
        snapshot = fields.pop("snapshot")
        return cls(
            **{
                **fields,
                "rootfs": _rootfs(fields["rootfs"]),
                "python": None if python is None else Path(python),
                "site": tuple(map(Path, fields["site"])),
                "program": tuple(fields["program"]),
                "user": (int(fields["user"][0]), int(fields["user"][1])),
                "own_network": None if own_network is None else (str(own_network[0]), int(own_network[1])),
                "snapshot": None if snapshot is None else Snapshot(**{**snapshot, "folder": Path(snapshot["folder"])}),
            }
        )


def _rootfs(fields: dict[str, Any]) -> Rootfs:
    return Rootfs(
        folder=Path(fields["folder"]),
        layer=Path(fields["layer"]),
        hidden=Path(fields["hidden"]),
        also_hidden=tuple(map(Path, fields["also_hidden"])),
        shown=tuple(map(Path, fields["shown"])),
        lent=tuple(map(Path, fields["lent"])),
        volumes=tuple(
            VolumeView(**{**volume, "view": Path(volume["view"]), "layers": tuple(map(Path, volume["layers"]))})
            for volume in fields["volumes"]
        ),
        cwd=fields["cwd"],
        kept=_path(fields["kept"]),
        layers=None if fields["layers"] is None else _layers(fields["layers"]),
    )


def _layers(fields: dict[str, Any]) -> Layers:
    lower = tuple(map(Path, fields["lower"]))
    return Layers(lower, _path(fields["upper"]), _path(fields["work"]), Path(fields["base"]))


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
