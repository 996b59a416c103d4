"""A container's root file system, set up by its first process.

Owns the mounts. On entry the process is in a new mount namespace (with isolation); on return its root is the
container's. The app's files and Volumes are at the app's paths. Writes go to a private layer, removed with the
container. The host's files are readable, except for the state folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from modalflow.emulator.images.layer_capture import LayerCapture
from modalflow.emulator.processes import syscalls
from modalflow.emulator.processes.container_spec import Isolation, Rootfs
from modalflow.emulator.processes.root import host_layers, volume_mounts

#: The place of the host's root during the setup.
_HOST = "/.modalflow-host"

#: The host's devices in a container: those without a state, and those for computing.
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "fuse", "nvidia*", "dri", "kfd")

#: Files of the host with effects on the whole machine if root writes them. runc's defaults (libcontainer's specconv),
#: with /sys in place of cgroups.
_MACHINE_WIDE = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/sys")

#: Files of this machine that another root needs as well: names of hosts, and certificates by their variable.
_OF_MACHINE = ("/etc/resolv.conf", "/etc/hosts")
_CERTIFICATES = "SSL_CERT_FILE"


def enter(isolation: Isolation, rootfs: Rootfs) -> tuple[LayerCapture | None, list[int]]:
    """Set up the root file system and enter it, with the app's current folder. OSError if it cannot be set up.

    Returns the capture of the private layer, if it is to be kept, and file descriptors for the first process to hold.
    """
    if rootfs.layers is not None and isolation is not Isolation.ROOT:
        raise OSError(
            "the image was built by a control plane with isolation 'root' or 'gvisor', and works only with that; "
            "build it again, for example with force_build"
        )
    if isolation is Isolation.PLAIN:
        _enter_plain(rootfs)
        return None, []
    scratch = rootfs.folder / "scratch"
    root = scratch / "root"
    syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
    scratch.mkdir(exist_ok=True)
    # An overlay's upper directory cannot be on an overlay, and a host's root often is one: a tmpfs always works.
    syscalls.mount("tmpfs", str(scratch), "tmpfs", options="mode=755")
    (scratch / "work").mkdir()
    root.mkdir()
    # Not a second lower layer: the kernel refuses layers inside each other (ELOOP).
    host_layers.copy_tree(str(rootfs.layer), str(scratch / "upper"))
    if rootfs.layers is not None:
        host_layers.image_over_host(rootfs, rootfs.layers, scratch)
    elif isolation is Isolation.ROOT:
        host_layers.one_overlay(rootfs, scratch)
    else:
        host_layers.many_overlays(rootfs, scratch)
    # A symlink of the host would lead into the container later.
    machines_own = {
        path: os.path.realpath(path) for path in filter(None, (*_OF_MACHINE, os.environ.get(_CERTIFICATES)))
    }
    capture = None if rootfs.kept is None else LayerCapture(scratch / "upper", rootfs.kept)
    os.makedirs(f"{root}{_HOST}")
    os.chdir(root)
    syscalls.pivot_root(".", f".{_HOST}")
    # All later paths are the container's: no symlink of the host can lead out of it.
    os.chdir("/")
    if rootfs.layers is not None and rootfs.layers.base != Path("/"):
        _complete_base(machines_own)
    elif rootfs.layers is not None and rootfs.layers.upper is not None:
        _own_run()
    _hide(rootfs)
    descriptors = volume_mounts.mount_all(rootfs.volumes, isolation, _HOST)
    syscalls.mount("proc", "/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    _make_devices()
    for path in _MACHINE_WIDE:
        if os.path.exists(path):
            syscalls.bind(path, path, recursive=True)
            syscalls.make_read_only(path)
    syscalls.unmount(_HOST)
    os.rmdir(_HOST)
    os.makedirs(rootfs.cwd, exist_ok=True)
    os.chdir(rootfs.cwd)
    return capture, descriptors


def plain_home(rootfs: Rootfs) -> Path:
    """Return the path of ``/root`` for a container without a root of its own."""
    return rootfs.folder / "root" / "root"


def _complete_base(real_paths: Mapping[str, str]) -> None:
    """Add the folders for file systems to another root, and files of the machine: their path → the one to show."""
    for folder in ("/proc", "/dev", "/sys", "/run"):
        os.makedirs(folder, exist_ok=True)
    os.makedirs("/tmp", 0o1777, exist_ok=True)
    for path, real in real_paths.items():
        if not os.path.exists(f"{_HOST}{real}"):
            continue
        if os.path.islink(path):
            os.unlink(path)
        if not os.path.exists(path):
            host_layers.make_point(f"{_HOST}{path}", path)
        syscalls.bind(f"{_HOST}{real}", path, read_only=True)


def _own_run() -> None:
    """Cover /run: the host's services listen there, and a package's installation would restart them."""
    name_servers = Path("/etc/resolv.conf")
    real = name_servers.resolve()
    text = name_servers.read_bytes() if real.is_relative_to("/run") and real.exists() else None
    os.makedirs("/run", exist_ok=True)
    syscalls.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=755")
    os.mkdir("/run/lock", 0o1777)
    if text is not None:
        real.parent.mkdir(parents=True, exist_ok=True)
        real.write_bytes(text)


def _make_devices() -> None:
    """Make a /dev for the container: the host's has its disks, and memory shared with others."""
    syscalls.mount("tmpfs", "/dev", "tmpfs", syscalls.MS_NOSUID, "mode=755")
    for pattern in _DEVICES:
        for device in Path(f"{_HOST}/dev").glob(pattern):
            there = f"/dev/{device.name}"
            host_layers.make_point(str(device), there)
            syscalls.bind(str(device), there, recursive=True)
    os.mkdir("/dev/shm", 0o1777)
    syscalls.mount("tmpfs", "/dev/shm", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=1777")
    os.mkdir("/dev/pts")
    with contextlib.suppress(OSError):
        # Only programs with terminals need it.
        syscalls.mount("devpts", "/dev/pts", "devpts", syscalls.MS_NOSUID, "newinstance,ptmxmode=0666,mode=620")
    for name, target in (
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ):
        os.symlink(target, f"/dev/{name}")


def _hide(rootfs: Rootfs) -> None:
    """Cover each of the control plane's folders with an empty one, except the parts for the container."""
    for hidden in map(str, (rootfs.hidden, *rootfs.also_hidden)):
        os.makedirs(hidden, exist_ok=True)
        syscalls.mount("tmpfs", hidden, "tmpfs", options="mode=755")
    for path in map(str, (*rootfs.shown, *rootfs.lent)):
        if os.path.lexists(f"{_HOST}{path}"):
            if not os.path.lexists(path):
                host_layers.make_point(f"{_HOST}{path}", path)
            if Path(path) in rootfs.lent:
                # In a user namespace a mount of the host keeps its options if they are stricter.
                with contextlib.suppress(PermissionError):
                    syscalls.bind(f"{_HOST}{path}", path, read_only=True)
            else:
                syscalls.bind(f"{_HOST}{path}", path, recursive=True)


def _enter_plain(rootfs: Rootfs) -> None:
    root = rootfs.folder / "root"
    if rootfs.layer.exists():
        shutil.copytree(rootfs.layer, root, dirs_exist_ok=True)
    # A Volume inside another comes later, because the outer view excludes it.
    for volume in sorted(rootfs.volumes, key=volume_mounts.depth):
        path = root / volume.mount_path.strip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir() and not path.is_symlink():
            # In a bucket, a folder made for it.
            path.rmdir()
        path.symlink_to(volume.view / volume.sub_path.strip("/"))
    home = plain_home(rootfs)
    home.mkdir(parents=True, exist_ok=True)
    os.chdir(home)
