"""A network namespace with a loopback alone: set up by a container's first process, entered by the template.

Owns what happens inside the namespace. A socket belongs to the namespace in which it was made, whoever uses it. So the
control plane gets sockets from here and needs no process of its own inside. Imports only what every new process has,
because the template holds this module for all containers.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import struct

from modalflow.emulator.processes import syscalls

#: ``ioctl`` requests of netdevice(7) for the flags of an interface, and the flag of one that is up.
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 0x1

#: The name of an interface and its flags, in a ``struct ifreq``.
_INTERFACE = "16sh22x"

#: Bytes of an error's text.
_LONGEST = 1024


def bring_up_loopback() -> None:
    """Make 127.0.0.1 and ::1 usable in this new namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack(_INTERFACE, b"lo", 0)
        _, flags = struct.unpack(_INTERFACE, fcntl.ioctl(any_socket, _SIOCGIFFLAGS, request))
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack(_INTERFACE, b"lo", flags | _IFF_UP))


def listen(address: tuple[str, int], receiver: int) -> None:
    """Bring up the loopback, listen at the address in this namespace, and send the socket to ``receiver``.

    ``receiver`` is the descriptor of a connected unix socket, closed afterwards.
    """
    bring_up_loopback()
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    with socket.socket(fileno=receiver) as sender, socket.create_server(address, family=family) as listener:
        socket.send_fds(sender, [b"+"], [listener.fileno()])


def open_socket(process: int, namespaces: int) -> socket.socket:
    """Return an unconnected TCP socket of another process's network; OSError if that is impossible.

    ``process`` is a pidfd. ``namespaces`` are the kinds to enter. Call it without other threads: a process with threads
    cannot enter a user namespace.
    """
    ours, theirs = socket.socketpair()
    with ours:
        pid = os.fork()
        if pid == 0:
            _send_socket(theirs, process, namespaces)
        theirs.close()
        received, descriptors, _, _ = socket.recv_fds(ours, _LONGEST, 1)
        os.waitpid(pid, 0)
    if not descriptors:
        raise OSError(received.decode(errors="replace") or "the process that opens sockets has ended")
    return socket.socket(fileno=descriptors[0])


def _send_socket(receiver: socket.socket, process: int, namespaces: int) -> None:
    """Enter the namespaces, send a socket from there, and end this process."""
    try:
        syscalls.enter_namespaces(process, namespaces)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as opened:
            socket.send_fds(receiver, [b"+"], [opened.fileno()])
    except BaseException as error:  # noqa: BLE001 (the process ends here; its parent reports the error)
        with contextlib.suppress(OSError):
            receiver.send(str(error).encode()[:_LONGEST])
    finally:
        os._exit(0)
