"""Looking at a container's processes from outside, as whoever runs the machine does."""

from __future__ import annotations

import re
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from tests.inside import asked, parent_of, zygotes_in
from tests.support import descendants, wait_until

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
    return asked(container, parent_of, zygote_of(container))


def children(pid: int) -> list[int]:
    return [child for child in descendants(pid) if parent_of(child) == pid]


def all_below(container: str) -> dict[int, str]:
    """Every process of a container but its main one, its zygotes and those prepared for a request: process id →
    command line."""
    return dict(asked(container, _below, main_process_of(container)))


def until_idle(container: str) -> None:
    """Wait until the container runs nothing but those."""
    left: dict[int, str] = {}

    def is_idle() -> bool:
        nonlocal left
        left = all_below(container)
        return not left

    try:
        wait_until(is_idle, 20)
    except AssertionError:
        raise AssertionError(f"still in the container: {left}") from None


def _below(main: int) -> list[tuple[int, str]]:
    idle = {main, *children(main)}
    below = descendants(main).items()
    return [(pid, command) for pid, command in below if pid not in idle and not is_prepared(command)]


def prepared_in(container: str) -> list[int]:
    """The supervisor and the task process that wait for a request; nothing if there are none."""
    below = asked(container, _descendants, zygote_of(container))
    return [pid for pid, command in below if is_prepared(command)] if len(below) == 2 else []


def alive_in(container: str, pids: list[int]) -> list[int]:
    """Those of the processes that still run below the container's zygote."""
    return [pid for pid, _ in asked(container, _descendants, zygote_of(container)) if pid in pids]


def _descendants(pid: int) -> list[tuple[int, str]]:
    return list(descendants(pid).items())


def is_prepared(command: str) -> bool:
    """Whether a process has the command line of its zygote: it has no work yet."""
    return "modalflow.worker.zygote.server" in command


def facts_of_kernel(pid: int) -> dict[str, Any]:
    """What the kernel knows of a process."""
    proc = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    stat = (proc / "stat").read_text().rpartition(")")[2].split()
    return {
        # gVisor has fewer.
        **{f"status {name}": status.get(name, "").strip() for name in _STATUS},
        # The kernel unblocks the one that is waited for, as long as it is waited for.
        "blocked": int(status.get("SigBlk", "0"), 16) & ~(1 << (signal.SIGUSR1 - 1)),
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
        kind = "file" if target.endswith(".log") else re.sub(r":.*", "", target)
        # gVisor's name for a pipe that comes from outside, as a container's output.
        kinds["pipe" if kind == "host" else kind] += 1
    return kinds


def size_of(pid: int) -> list[int]:
    """Open files, threads, children, and pages in memory."""
    threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return [files_of(pid).total(), threads, len(children(pid)), resident]


def variables_of(pid: int) -> list[str]:
    """What ``/proc/<pid>/environ`` shows: the variables that the program was started with."""
    return sorted(filter(None, Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")))
