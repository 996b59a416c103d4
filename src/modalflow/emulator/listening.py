"""The address at which a control plane listens: a loopback address, or the one of a network that its user names.

Owns the check and the warning.
"""

from __future__ import annotations

import ipaddress

LOOPBACK = ("127.0.0.1", "::1", "localhost")

#: Characters of a secret for a network. A random one has 35.
SHORTEST_SECRET = 16


def is_loopback(host: str) -> bool:
    """Return whether only this machine can connect to the address."""
    return host in LOOPBACK


def check(host: str, network: str, token_secret: str | None) -> None:
    """Raise ValueError for an address at which no control plane may listen.

    A wildcard is refused, because clients get the address in URLs and the user should know the network. So is a
    public address, because nothing is encrypted.
    """
    if is_loopback(host):
        return
    expected = "expected a loopback address, e.g. 127.0.0.1, or this machine's address in a private network"
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise ValueError(f"host is {host!r}; {expected}, e.g. 172.17.0.1") from None
    if address.is_unspecified:
        raise ValueError(f"host is {host!r}, which stands for every network; {expected}, e.g. 172.17.0.1")
    if address.is_loopback or address.is_multicast or address.is_link_local or address.is_global:
        raise ValueError(f"host is {host!r}; {expected}, e.g. 172.17.0.1")
    if network != "host":
        raise ValueError(f"network is {network!r} and host is {host!r}: containers without a network cannot reach it")
    if token_secret is not None and len(token_secret) < SHORTEST_SECRET:
        raise ValueError(
            f"token_secret has {len(token_secret)} characters; expected at least {SHORTEST_SECRET} for the host "
            f"{host!r}, or none to get a random one"
        )


def warning(host: str) -> str:
    """Return the warning about an address in a network; empty for a loopback address."""
    if is_loopback(host):
        return ""
    return (
        f"The control plane listens on {host}. Every program in this network with the token can run commands as your "
        "user. The token and all data travel unencrypted. Tunnels of containers need no token. Use a network of this "
        "machine, for example Docker's."
    )
