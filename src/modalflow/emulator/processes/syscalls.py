"""System calls without a function in Python: mounts, namespaces, capabilities.

Owns their names, numbers and errors; the calls are made by rootfs.py and template.py. They exist only on Linux.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import sys

CLONE_NEWNS = 0x00020000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 0x1
MS_NOSUID = 0x2
MS_NODEV = 0x4
MS_NOEXEC = 0x8
MS_REMOUNT = 0x20
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MNT_DETACH = 0x2

_PR_CAPBSET_DROP = 24

#: The rights of root in a container, by their names and numbers in capabilities(7). These are Docker's defaults,
#: without making devices (MKNOD), writing to the audit log, and NET_RAW. A container may be on the host's network and
#: could read its packets.
KEPT_CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_SYS_CHROOT": 18,
    "CAP_SETFCAP": 31,
}
_CAPABILITY_VERSION = 0x20080522

#: mount_setattr(2) has the same number on every machine; glibc has a function for it only since 2.36.
_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1

#: (clone, pivot_root): glibc has no function for a clone with two returns, nor for pivot_root.
_NUMBERS = {"x86_64": (56, 155), "aarch64": (220, 41)}

_libc = ctypes.CDLL(None, use_errno=True)
#: Called with the interpreter's lock held: after a clone the same thread runs in another process.
_locked = ctypes.PyDLL(None, use_errno=True)


def has_namespaces() -> bool:
    """Return whether this program supports namespaces on this architecture; the machine may still refuse them."""
    return sys.platform == "linux" and platform.machine() in _NUMBERS


def fork(namespaces: int = 0) -> int:
    """Fork as ``os.fork`` does, with the child as the first process in new namespaces (CLONE_NEW…)."""
    if not namespaces:
        return os.fork()
    clone, _ = _NUMBERS[platform.machine()]
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _locked.syscall(ctypes.c_long(clone), ctypes.c_ulong(namespaces | signal.SIGCHLD), 0, 0, 0, 0)
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
        return 0
    number = ctypes.get_errno()
    ctypes.pythonapi.PyOS_AfterFork_Parent()
    if pid < 0:
        raise OSError(number, f"no new namespaces: {os.strerror(number)}")
    return pid


def enter_namespaces(process: int, namespaces: int) -> None:
    """Move this process into namespaces (CLONE_NEW…) of another one, given by its pidfd."""
    if _libc.setns(process, namespaces):
        number = ctypes.get_errno()
        raise OSError(number, f"the container's namespaces cannot be entered: {os.strerror(number)}")


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount a file system; the OSError names its source and the reason."""
    if _libc.mount(
        os.fsencode(source),
        os.fsencode(target),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        os.fsencode(options) if options else None,
    ):
        number = ctypes.get_errno()
        raise OSError(number, f"{kind or 'bind'} mount of {source} failed: {os.strerror(number)}", target)


def bind(source: str, target: str, *, recursive: bool = False, read_only: bool = False) -> None:
    """Show a folder or file at another path as well."""
    mount(source, target, flags=MS_BIND | (MS_REC if recursive else 0))
    if read_only:
        mount(source, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)


def make_read_only(target: str) -> None:
    """Make a mount and all mounts below it read-only; OSError if this is impossible."""
    attributes = (ctypes.c_uint64 * 4)(_MOUNT_ATTR_RDONLY, 0, 0, 0)
    if _libc.syscall(
        ctypes.c_long(_MOUNT_SETATTR),
        _AT_FDCWD,
        os.fsencode(target),
        ctypes.c_uint(_AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    ):
        number = ctypes.get_errno()
        if number == errno.ENOSYS:
            # Linux before 5.12: then without the mounts below it.
            mount(target, target, flags=MS_BIND | MS_REMOUNT | MS_RDONLY)
            return
        raise OSError(number, f"no read-only mount: {os.strerror(number)}", target)


def drop_capabilities() -> None:
    """Drop unneeded capabilities of a container's root, permanently and for all child processes."""
    for number in range(64):
        if number not in KEPT_CAPABILITIES.values() and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            # The kernel knows neither this capability nor any higher one.
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Twice (effective, permitted, inheritable): the lower half of the numbers, then the upper one.
    held = (ctypes.c_uint32 * 6)()
    kept = sum(1 << number for number in KEPT_CAPABILITIES.values())
    if _libc.capget(header, held) == 0:
        held[0], held[1] = held[0] & kept, held[1] & kept
        held[2] = held[3] = held[4] = held[5] = 0
        if _libc.capset(header, held) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, f"capabilities cannot be dropped: {os.strerror(number)}")


def unmount(target: str) -> None:
    """Unmount a mount and all below it: at once by path, and later for processes with open files."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def pivot_root(root: str, old: str) -> None:
    """Make a mount the root of this namespace; afterwards the old root is at ``old``, a folder in it."""
    _, number = _NUMBERS[platform.machine()]
    if _libc.syscall(ctypes.c_long(number), os.fsencode(root), os.fsencode(old)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), root)
