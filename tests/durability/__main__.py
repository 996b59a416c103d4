"""``python -m tests.durability --kills 300``: the long form of test_kills.py, with numbers."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.durability import kills
from tests.durability.workloads import WORKLOADS


def main() -> None:
    parser = argparse.ArgumentParser("tests.durability", description=__doc__)
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--only", action="append", help="the name of a workload, repeatable; else all run")
    given = parser.parse_args()
    kinds = [kind for kind in WORKLOADS if not given.only or kind.name in given.only]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        report = kills.run(Path(folder, "state"), kinds, given.kills, given.seed)
    sys.stdout.write(f"seed {given.seed}, {time.monotonic() - began:.0f} s\n{report}\n")
    if report.problems:
        sys.stdout.write(f"the control plane wrote:\n{report.said[-4_000:]}\n")
    sys.exit(1 if report.problems else 0)


if __name__ == "__main__":
    main()
