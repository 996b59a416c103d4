"""The hostname that Airflow sees: the container's own id.

Airflow treats an equal (hostname, user, PID) as a repeated request, so two containers must never share a hostname.
``[core] hostname_callable`` names the function. This module may import only the standard library.
"""

from __future__ import annotations

import os
import socket


def container_id() -> str:
    """Return the id that Modal gave this container ("ta-…"), or the machine's name outside of a container."""
    return os.environ.get("MODAL_TASK_ID") or socket.gethostname()
