"""Free ports for programs without support for inherited sockets.

Owns no port: it only finds one.
"""

from __future__ import annotations

import random
import socket
from typing import Final

# Below every system's range of ephemeral ports, so no outgoing connection can take the port before the program's own
# bind.
FIRST: Final = 20000
LAST: Final = 32000


def free_port(host: str = "127.0.0.1") -> int:
    """Return a free port on ``host``."""
    chooser = random.SystemRandom()
    for _ in range(200):
        port = chooser.randint(FIRST, LAST)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise RuntimeError(f"no free port on {host} between {FIRST} and {LAST} in 200 tries; close some listening programs")
