"""The first process of a container: prepare the root, start the runtime, forward signals, reap orphans.

Owns process 1 of the container's process namespace. When it exits, the kernel ends all other processes there; without
a namespace it kills them itself.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from modalflow.emulator.images.layer_capture import LayerCapture
from modalflow.emulator.processes import syscalls
from modalflow.emulator.processes.container_spec import Isolation, Rootfs
from modalflow.emulator.processes.root.rootfs import enter
from modalflow.emulator.processes.sandboxes.supervision import CHECKPOINT
from modalflow.support import linux

FORWARDED = (signal.SIGINT, signal.SIGTERM, CHECKPOINT)
_AWAITED = frozenset((*FORWARDED, signal.SIGCHLD))

#: The exit code if the root cannot be prepared, as in a shell that cannot run a program.
NO_ROOTFS = 126


def start(
    isolation: Isolation,
    rootfs: Rootfs,
    prepare: Callable[[], None],
    own_network: Callable[[], None] | None = None,
    *,
    keep_rights: bool = False,
) -> tuple[int, bool]:
    """Fork the first process of a container, which forks the second one. Returns in two processes.

    In the template it returns (pid of the first process, False); in the container's second process (0, True).
    The first process calls ``prepare`` before anything else. With ``own_network`` the container is in a new network
    namespace, which the first process sets up with this function. With ``keep_rights`` the second process keeps its
    capabilities: a program that sets up a sandbox needs them, and drops them for the container.
    """
    parent, user, group = os.getpid(), os.geteuid(), os.getegid()
    pid = syscalls.fork(_namespaces(isolation) | (syscalls.CLONE_NEWNET if own_network is not None else 0))
    if pid:
        return pid, False
    try:
        _exit_with(parent)
        prepare()
        # Until the second process exists. An ignored signal is lost; a blocked one waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _AWAITED)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        if isolation is Isolation.USER:
            _become_root(user, group)
        if own_network is not None:
            own_network()
        if isolation is Isolation.PLAIN:
            linux.adopt_orphans()
        capture, held = enter(isolation, rootfs)
        child = os.fork()
    except BaseException as error:  # noqa: BLE001 (nothing above this process can report the error)
        os.write(2, f"modalflow: the container's root or network could not be made: {error!r}\n".encode())
        os._exit(NO_ROOTFS)
    if child == 0:
        # These descriptors belong to the first process only.
        for descriptor in held:
            os.close(descriptor)
        if capture is not None:
            capture.close()
        if isolation is Isolation.PLAIN:
            _exit_with(os.getppid())
        elif not keep_rights:
            # With them it could remove the mounts that hide other files.
            syscalls.drop_capabilities()
        os.setsid()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _AWAITED)
        return 0, True
    # A working directory counts as in use, and may be in a Volume.
    os.chdir("/")
    _supervise(child, isolation, capture)


def _namespaces(isolation: Isolation) -> int:
    if isolation is Isolation.PLAIN:
        return 0
    apart = syscalls.CLONE_NEWNS | syscalls.CLONE_NEWPID
    return apart | syscalls.CLONE_NEWUSER if isolation is Isolation.USER else apart


def _exit_with(parent: int) -> None:
    """Exit when the template exits, which may already have happened.

    Read the parent from /proc, still the host's: the template has no number in a new process namespace.
    """
    linux.die_with_parent()
    us = linux.read("self")
    if (os.getppid() if us is None else us.parent) != parent:
        os._exit(NO_ROOTFS)


def _become_root(user: int, group: int) -> None:
    """Become root inside a new user namespace, mapped to the present user outside."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def _supervise(child: int, isolation: Isolation, capture: LayerCapture | None) -> NoReturn:
    while True:
        number = signal.sigwait(_AWAITED)
        if number != signal.SIGCHLD:
            os.kill(child, number)
            continue
        code = _reap(child)
        if code is not None:
            if isolation is Isolation.PLAIN:
                _end_all_below()
            if capture is not None:
                try:
                    capture.keep()
                except OSError as error:
                    os.write(2, f"modalflow: the container's files could not be kept: {error}\n".encode())
                    code = code or NO_ROOTFS
            os._exit(code)


def _reap(child: int) -> int | None:
    """Reap exited processes; return the child's exit code if it is among them, for signals as a shell does."""
    code = {ended.pid: ended.code for ended in linux.reaped()}.get(child)
    return 128 - code if code is not None and code < 0 else code


def _end_all_below() -> None:
    """Kill children until none is left: the children of a killed process become children of this one."""
    while pids := linux.children(os.getpid()):
        for pid in pids:
            linux.send(pid, signal.SIGKILL)
        _reap(0)
        time.sleep(0.001)
