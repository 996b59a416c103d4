"""The hostname that Airflow sees: the container's own id.

Airflow takes an equal (hostname, user, PID) for a repeated request, so two containers must never share one.
Named in ``[core] hostname_callable``; must not import anything but the standard library.
"""

from __future__ import annotations

import os
import socket


def container_id() -> str:
    """The id Modal gave this container ("ta-…"), or the machine's name outside of one."""
    return os.environ.get("MODAL_TASK_ID") or socket.gethostname()
