"""The network of gVisor's own, inside a sandbox: all addresses lead to one listening socket.

Owns the requests to gVisor's kernel. They need CAP_NET_ADMIN and CAP_NET_RAW.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

#: An address for the loopback, and its prefix: all addresses are in that network. gVisor's loopback accepts all
#: addresses of its networks.
_ADDRESS, _PREFIX = "169.254.100.1", 0

#: rtnetlink(7): the message that adds an address, its flags (a request, with an answer, of a new one), its attributes.
_RTM_NEWADDR, _FLAGS, _IFA_ADDRESS, _IFA_LOCAL, _LOOPBACK = 20, 0x1 | 0x4 | 0x400 | 0x200, 1, 2, 1

#: The table `nat` of iptables (linux/netfilter_ipv4/ip_tables.h): the option to replace it, and its hooks.
_IPT_SO_SET_REPLACE, _NAME, _HOOKS = 64, b"nat", 0b11011
_ACCEPT = -2
_INVERTED_DESTINATION = 0x10
_MAPPED_PORT = 2
_RULES = 6

#: getsockopt: where a redirected connection was going.
_SO_ORIGINAL_DST, _SOCKADDR_BYTES = 80, 16

_libc = ctypes.CDLL(None, use_errno=True)


def accept_all_addresses() -> None:
    """Make connections to any address end in this network; harmless if they do already."""
    address = socket.inet_aton(_ADDRESS)
    body = struct.pack("=BBBBi", socket.AF_INET, _PREFIX, 0, 0, _LOOPBACK)
    for attribute in (_IFA_LOCAL, _IFA_ADDRESS):
        body += struct.pack("=HH4s", 8, attribute, address)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as kernel:
        kernel.bind((0, 0))
        kernel.send(struct.pack("=IHHII", 16 + len(body), _RTM_NEWADDR, _FLAGS, 1, 0) + body)
        (code,) = struct.unpack_from("=i", kernel.recv(4096), 16)
    if code and code != -17:
        raise OSError(-code, f"no address can be added: {os.strerror(-code)}")


def redirect_to(port: int) -> None:
    """Lead all TCP connections to other addresses than the loopback's to a port of it."""
    accept = _entry(_match(), _verdict(_ACCEPT))
    loopback = (socket.inet_aton("127.0.0.0"), socket.inet_aton("255.0.0.0"))
    others = _entry(_match(loopback, socket.IPPROTO_TCP, _INVERTED_DESTINATION), _redirection(port))
    # The chains PREROUTING, INPUT, OUTPUT with its policy, POSTROUTING, and the end.
    entries = [accept, accept, others, accept, accept, _entry(_match(), _end())]
    starts = [sum(map(len, entries[:number])) for number in range(len(entries))]
    hooks = [starts[0], starts[1], 0, starts[2], starts[4]]
    policies = [starts[0], starts[1], 0, starts[3], starts[4]]
    counters = ctypes.create_string_buffer(16 * _RULES)
    table = b"".join(entries)
    header = struct.pack(
        "=32sIII5I5IIQ",
        _NAME,
        _HOOKS,
        len(entries),
        len(table),
        *hooks,
        *policies,
        _RULES,
        ctypes.addressof(counters),
    )
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as kernel:
        request = header + table
        if _libc.setsockopt(kernel.fileno(), socket.IPPROTO_IP, _IPT_SO_SET_REPLACE, request, len(request)):
            number = ctypes.get_errno()
            raise OSError(number, f"connections cannot be redirected: {os.strerror(number)}")


def destination(connection: socket.socket) -> tuple[str, int]:
    """Return where a connection was going."""
    try:
        found = connection.getsockopt(socket.IPPROTO_IP, _SO_ORIGINAL_DST, _SOCKADDR_BYTES)
    except OSError:
        host, port = connection.getsockname()[:2]
        return str(host), int(port)
    (port,) = struct.unpack_from("!H", found, 2)
    return socket.inet_ntoa(found[4:8]), int(port)


def _match(network: tuple[bytes, bytes] = (b"", b""), protocol: int = 0, flags: int = 0) -> bytes:
    """Return the condition of a rule: a destination and a protocol."""
    return struct.pack("=4x4s4x4s64xHBB", *network, protocol, 0, flags)


def _entry(match: bytes, target: bytes) -> bytes:
    offset = len(match) + 28
    return match + struct.pack("=IHHIQQ", 0, offset, offset + len(target), 0, 0, 0) + target


def _verdict(verdict: int) -> bytes:
    return struct.pack("=H29sBi4x", 40, b"", 0, verdict)


def _redirection(port: int) -> bytes:
    ends = struct.pack("!HH", port, port)
    return struct.pack("=H29sBII8s4s4x", 56, b"REDIRECT", 0, 1, _MAPPED_PORT, b"", ends)


def _end() -> bytes:
    return struct.pack("=H29sB30s2x", 64, b"ERROR", 0, b"ERROR")
