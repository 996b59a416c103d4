"""A container's first process: it makes the room, has the runtime below it, passes signals on and takes in orphans.

Owns process 1 of the container's process namespace. When it ends the kernel ends all others there; without a
namespace it ends them itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from modalflow.emulator.images.layer_capture import Keeper
from modalflow.emulator.processes import rootfs, syscalls
from modalflow.emulator.processes.container_spec import Isolation, Room
from modalflow.support import linux

PASSED_ON = (signal.SIGINT, signal.SIGTERM)
_AWAITED = frozenset((*PASSED_ON, signal.SIGCHLD))

#: The exit code where the room could not be made, as a shell's where it cannot run the program.
NO_ROOM = 126


def start(isolation: Isolation, room: Room, prepare: Callable[[], None]) -> tuple[int, bool]:
    """Fork a container's first process, and that the second one, which is where this returns twice.

    In the template it returns (the first process's id, False), in the container's second process (0, True).
    ``prepare`` is called first thing in the first process.
    """
    parent, user, group = os.getpid(), os.geteuid(), os.getegid()
    pid = syscalls.fork(_namespaces(isolation))
    if pid:
        return pid, False
    try:
        _live_and_die(parent)
        prepare()
        # Until it is known who they are for. What comes for an ignored one is lost, what comes for a blocked one waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if isolation is Isolation.USER:
            _be_root(user, group)
        if isolation is Isolation.PLAIN:
            linux.adopt_orphans()
        keeper, held = rootfs.enter(isolation, room)
        child = os.fork()
    except BaseException as error:  # noqa: BLE001 (this process has nobody above it: what it does not say nobody knows)
        os.write(2, f"modalflow: the container's file system could not be made: {error!r}\n".encode())
        os._exit(NO_ROOM)
    if child == 0:
        # What the first process holds on to is not for the container.
        for descriptor in held:
            os.close(descriptor)
        if keeper is not None:
            keeper.close()
        if isolation is Isolation.PLAIN:
            _live_and_die(os.getppid())
        else:
            # With them it could take away the mounts that hide what is not its own.
            syscalls.drop_capabilities()
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        return 0, True
    # What it stands in counts as in use, and may be a volume's.
    os.chdir("/")
    _tend(child, isolation, keeper)


def _namespaces(isolation: Isolation) -> int:
    if isolation is Isolation.PLAIN:
        return 0
    apart = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
    return apart | syscalls.CLONE_NEWUSER if isolation is Isolation.USER else apart


def _live_and_die(parent: int) -> None:
    """End when the template ends, which may have happened already.

    Asked of /proc, which is the host's still: in a new process namespace the template has no number.
    """
    linux.die_with_parent()
    us = linux.read("self")
    if (os.getppid() if us is None else us.parent) != parent:
        os._exit(NO_ROOM)


def _be_root(user: int, group: int) -> None:
    """In a new user namespace: be root there, and who one was outside."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _tend(child: int, isolation: Isolation, keeper: Keeper | None) -> NoReturn:
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            if isolation is Isolation.PLAIN:
                _end_all_below()
            if keeper is not None:
                try:
                    keeper.keep()
                except OSError as error:
                    os.write(2, f"modalflow: what the container wrote could not be kept: {error}\n".encode())
                    code = code or NO_ROOM
            os._exit(code)


def _reap(child: int) -> int | None:
    """Take in all that ended; return the child's exit code if it was among them, a signal's as a shell gives it."""
    codes = {ended.pid: ended.code for ended in linux.reaped()}
    code = codes.get(child)
    return 128 - code if code is not None and code < 0 else code


def _end_all_below() -> None:
    """Kill children until there are none: those of a killed one become children here."""
    while pids := linux.children(os.getpid()):
        for pid in pids:
            linux.send(pid, signal.SIGKILL)
        _reap(0)
        time.sleep(0.001)
