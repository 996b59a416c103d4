"""Whether this process runs in gVisor."""

from __future__ import annotations

import os


def is_in_gvisor() -> bool:
    """Return whether this process runs in gVisor."""
    # Modal sets the variable; gVisor has always reported this version of Linux.
    return os.environ.get("MODAL_FUNCTION_RUNTIME") == "gvisor" or os.uname().release == "4.4.0"
