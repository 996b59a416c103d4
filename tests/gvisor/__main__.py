"""Whether this machine allows what containers in gVisor need around them; if not, exit code 3 and the reason."""

from __future__ import annotations

import sys

from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.processes.template import problem_with, room_of

#: As that of scripts/install-runsc.
IMPOSSIBLE = 3

if __name__ == "__main__":
    if problem := problem_with(room_of(Isolation.GVISOR)):
        print(f"containers cannot be isolated on this machine: {problem}", file=sys.stderr)
        sys.exit(IMPOSSIBLE)
