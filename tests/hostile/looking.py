"""Looking at a container's processes from outside, as whoever runs the machine does."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.integration.world import parent_of, zygotes_in
from tests.support import descendants

#: Rows of /proc/<pid>/status that a new process has like any other.
_STATUS = (
    "Umask",
    "SigIgn",
    "SigCgt",
    "SigPnd",
    "ShdPnd",
    "Threads",
    "CapEff",
    "NoNewPrivs",
    "Groups",
    "Uid",
)

_NICE, _TERMINAL = 16, 4


def zygote_of(container: str) -> int:
    """The one that has imported Airflow."""
    [zygote] = zygotes_in(container)
    return zygote


def main_process_of(container: str) -> int:
    return parent_of(zygote_of(container))


def children(pid: int) -> list[int]:
    return [child for child in descendants(pid) if parent_of(child) == pid]


def all_below(container: str) -> dict[int, str]:
    """Every process of a container but its main one, its zygotes and those prepared for a request: process id →
    command line."""
    main = main_process_of(container)
    idle = {main, *children(main)}
    return {pid: command for pid, command in descendants(main).items() if pid not in idle and not is_prepared(command)}


def prepared_in(container: str) -> list[int]:
    """The supervisor and the task process that wait for a request; nothing if there are none."""
    below = descendants(zygote_of(container))
    return [pid for pid, command in below.items() if is_prepared(command)] if len(below) == 2 else []


def is_prepared(command: str) -> bool:
    """Whether a process has the command line of its zygote: it has no work yet."""
    return "modalflow.worker.zygote.server" in command


def facts_of_kernel(pid: int) -> dict[str, Any]:
    """What the kernel knows of a process."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    return {
        **{f"status {name}": status[name].strip() for name in _STATUS},
        # The kernel unblocks the one that is waited for, as long as it is waited for.
        "blocked": int(status["SigBlk"], 16) & ~(1 << (signal.SIGUSR1 - 1)),
        "working directory": str((proc / "cwd").readlink()),
        "files": dict(files_of(pid)),
        "limits": (proc / "limits").read_text().splitlines(),
        "oom_score_adj": (proc / "oom_score_adj").read_text(),
        "nice": stat[_NICE],
        "terminal": stat[_TERMINAL],
        "leads its session": int(stat[3]) == pid,
        "leads its group": int(stat[2]) == pid,
        "title": (proc / "cmdline").read_bytes().rstrip(b" \0").decode(),
        "first variables": variables_of(pid),
    }


def files_of(pid: int) -> Counter[str]:
    """How many open files of each kind."""
    kinds: Counter[str] = Counter()
    for file in Path(f"/proc/{pid}/fd").iterdir():
        target = str(file.readlink())
        kinds["file" if target.endswith(".log") else re.sub(r":.*", "", target)] += 1
    return kinds


def variables_of(pid: int) -> list[str]:
    """What ``/proc/<pid>/environ`` shows: the variables that the program was started with."""
    return sorted(filter(None, Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")))
