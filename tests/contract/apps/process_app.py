"""An app that tells what process it runs in. Runs in containers."""

import contextlib
import gc
import logging
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import modal

app = modal.App("process", image=modal.Image.debian_slim())


def facts() -> dict[str, Any]:
    """All that user code could tell one way of starting from the other by, and that does not differ each time."""
    main = sys.modules["__main__"]
    streams = {}
    for name in ("stdin", "stdout", "stderr"):
        stream: Any = getattr(sys, name)
        streams[name] = (
            stream.fileno(),
            stream.encoding,
            stream.errors,
            stream.line_buffering,
            stream.write_through,
            stream.isatty(),
            type(stream.buffer).__name__,
            str(pathlib.Path(f"/proc/self/fd/{stream.fileno()}").readlink()).partition(":")[0],
        )
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    return {
        "argv": sys.argv,
        "orig_argv": sys.orig_argv[1:],
        "executable": sys.executable,
        "prefixes": (sys.prefix, sys.exec_prefix, sys.base_prefix),
        "flags": str(sys.flags),
        "path": sys.path,
        "main": (main.__name__, main.__file__, main.__spec__ and main.__spec__.name, main.__package__),
        "runtime under its name": "modal._container_entrypoint" in sys.modules,
        "strangers": sorted(name for name in sys.modules if name.startswith("modalflow")),
        "streams": streams,
        "open files": sorted(
            target
            for target in (_target(f) for f in pathlib.Path("/proc/self/fd").iterdir())
            if not target.startswith(("socket:", "anon_inode:", "pipe:", "/proc/"))
        ),
        "signals": {int(n): str(signal.getsignal(n)).partition(" at ")[0] for n in signal.valid_signals()},
        "blocked": sorted(map(int, mask)),
        "umask": _umask(),
        "cwd": os.getcwd(),  # noqa: PTH109 (as the system says)
        "leads its session": os.getsid(0) == os.getpid() == os.getpgid(0),
        "parent": os.getppid(),
        "main thread": threading.current_thread() is threading.main_thread(),
        "native id": threading.main_thread().native_id == os.getpid(),
        "limits": [resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        "gc": (gc.isenabled(), gc.get_threshold()),
        "time zone": time.tzname,
        "loggers": [
            (name, logging.getLogger(name).level, [handler.level for handler in logging.getLogger(name).handlers])
            for name in ("modal-client", "modal-utils")
        ],
        "variables": sorted(name for name in os.environ if name not in ("LC_CTYPE",)),
        "subprocess": subprocess.run(
            [sys.executable, "-c", "import sys; print(sys.prefix, sys.path[1:])"], capture_output=True, text=True
        ).stdout,
    }


def _target(descriptor: pathlib.Path) -> str:
    with contextlib.suppress(OSError):
        return str(descriptor.readlink())
    return "pipe:"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def command_line() -> str:
    return pathlib.Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode()


@app.function(single_use_containers=True)
def process() -> tuple[str, dict[str, Any]]:
    return command_line(), facts()


@app.function(single_use_containers=True)
def draws() -> float:
    return random.random()


@app.function()
def number_after(notes: str, seconds: float) -> int:
    """Count how often this was begun, and take that long the first time."""
    counted = modal.Dict.from_name(notes, create_if_missing=True)
    begun = int(counted.get("begun", 0)) + 1
    counted["begun"] = begun
    if begun == 1:
        time.sleep(seconds)
    return begun
