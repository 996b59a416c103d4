"""System calls without a function in Python: mounts, namespaces, capabilities.

Owns their names, numbers and errors; what they are called for is rooms.py's and template.py's. Linux alone has them.
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

#: What root in a container may still do, by the numbers of capabilities(7): Docker's default, without making devices
#: (MKNOD), writing to the audit log, and NET_RAW: a container is on the host's network, where it could read along.
_KEPT_CAPABILITIES = (
    0,  # CHOWN
    1,  # DAC_OVERRIDE
    3,  # FOWNER
    4,  # FSETID
    5,  # KILL
    6,  # SETGID
    7,  # SETUID
    8,  # SETPCAP
    10,  # NET_BIND_SERVICE
    18,  # SYS_CHROOT
    31,  # SETFCAP
)
_CAPABILITY_VERSION = 0x20080522

#: mount_setattr(2) has the same number on every machine; glibc has a function for it since 2.36 only.
_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_RECURSIVE = 0x8000
_MOUNT_ATTR_RDONLY = 0x1

#: (clone, pivot_root): glibc has no function for a clone that returns twice, nor for pivot_root.
_NUMBERS = {"x86_64": (56, 155), "aarch64": (220, 41)}

_libc = ctypes.CDLL(None, use_errno=True)
#: Called with the interpreter's lock held: what runs after a clone is the same thread, in another process.
_locked = ctypes.PyDLL(None, use_errno=True)


def has_namespaces() -> bool:
    """Whether this program knows how to ask this machine for namespaces; it may refuse them all the same."""
    return sys.platform == "linux" and platform.machine() in _NUMBERS


def fork(namespaces: int = 0) -> int:
    """As ``os.fork``, the child in new namespaces (CLONE_NEW…) of which it is the first process."""
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


def mount(source: str, target: str, kind: str = "", flags: int = 0, options: str = "") -> None:
    """Mount; OSError says what could not be mounted where."""
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
    """Refuse writes to a mount and to all below it, whatever else they allow; OSError where that cannot be."""
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
    """Give up, for good and for all that this process starts, what a container's root has no business with."""
    for number in range(64):
        if number not in _KEPT_CAPABILITIES and _libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0):
            # The kernel knows no capability of that number, nor of any higher one.
            break
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0)
    # Twice (effective, permitted, inheritable): the lower half of the numbers, then the upper one.
    held = (ctypes.c_uint32 * 6)()
    kept = sum(1 << number for number in _KEPT_CAPABILITIES)
    if _libc.capget(header, held) == 0:
        held[0], held[1] = held[0] & kept, held[1] & kept
        held[2] = held[3] = held[4] = held[5] = 0
        if _libc.capset(header, held) == 0:
            return
    number = ctypes.get_errno()
    raise OSError(number, f"capabilities cannot be given up: {os.strerror(number)}")


def unmount(target: str) -> None:
    """Take a mount and all below it away, at once for whoever looks, in the end for whoever still uses it."""
    if _libc.umount2(os.fsencode(target), MNT_DETACH):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), target)


def pivot_root(root: str, old: str) -> None:
    """Make a mount the root of this namespace; what was the root is at ``old``, a folder in it, afterwards."""
    _, number = _NUMBERS[platform.machine()]
    if _libc.syscall(ctypes.c_long(number), os.fsencode(root), os.fsencode(old)):
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error), root)
