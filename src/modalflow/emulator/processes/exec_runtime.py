"""How a process that was forked from the template becomes Modal's container runtime, as if newly started.

Owns what a new process has of its own: environment, module path, ``__main__``, arguments; and the judgement whether a
fork can be told from a new process at all. Where it could, a new interpreter takes its place, in the same room.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import resource
import runpy
import signal
import site
import sys
import threading
import time
import types
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modalflow.emulator.processes.container_spec import Start

RUNTIME = "modal._container_entrypoint"

#: What the runtime imports only once it is at work, besides itself.
ALSO_NEEDED = (
    "asyncio",
    "concurrent.futures.thread",
    "modal.cls",
    "modal.functions",
    "ssl",
)

#: Read by the interpreter, the loader or the C library when a process starts, and at no later time.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_TUNABLES")

#: Of those and of what is read while modules are imported: without effect there, or given its effect here.
_GIVEN_EFFECT = ("PYTHONPATH", "HOME")


@dataclass(frozen=True)
class Preloaded:
    """What the template has imported, and what that depends on."""

    modules: frozenset[str]
    """Names of top-level modules."""
    variables: frozenset[str]
    """Names of environment variables that were read meanwhile."""
    environ: Mapping[str, str]
    """All variables, as they were then."""
    path: tuple[str, ...]
    """The module path, without what the environment had put there."""

    def unfit(self, start: Start) -> str:
        """Return why a fork would differ from a new process, empty if it would not. In the container's room."""
        read_at_start = {n for n in (*start.variables, *self.environ) if n.startswith(_READ_AT_START)}
        for name in sorted((self.variables | read_at_start).difference(_GIVEN_EFFECT)):
            if start.variables.get(name) != self.environ.get(name):
                return f"its variable {name} is another one"
        for folder in _first_on_path(start, self.path):
            for name in _importable(folder):
                if name in self.modules:
                    return f"{folder} has a module {name}"
        return ""


def preload() -> Preloaded:
    """Import the runtime and what it needs; ImportError if that cannot be."""
    environ = dict(os.environ)
    path = tuple(entry for entry in sys.path if entry not in _entries(environ.get("PYTHONPATH", "")))
    with _recorded() as variables:
        importlib.import_module(RUNTIME)
        for name in ALSO_NEEDED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    modules = {name.partition(".")[0] for name in sys.modules} - {"__main__", "modalflow"}
    # What is here stays: a look at it in a child would only make a copy of its memory.
    gc.collect()
    gc.freeze()
    return Preloaded(frozenset(modules), frozenset(variables), environ, path)


def execute(start: Start) -> None:
    """Replace this process by a new interpreter that runs the runtime, or by the program that is to run instead."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        # The interpreter ignores these, and a process that it starts would not know of it.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if start.program:
        # Without a root of its own a room has its current folder elsewhere.
        os.chdir(start.room.cwd)
        os.execve(start.program[0], start.program, start.variables)
    python = str(start.python or sys.executable)
    os.execve(python, [python, "-m", RUNTIME], start.variables)


def limit(limits: Mapping[str, int]) -> None:
    """Set resource limits of this process."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def run(start: Start, preloaded: Preloaded) -> None:
    """Run the runtime in this process. Returns, or raises, when it has ended."""
    os.environ.clear()
    os.environ.update(start.variables)
    if hasattr(time, "tzset"):
        time.tzset()
    sys.path[:] = _path(start, preloaded.path)
    importlib.invalidate_caches()
    if start.python is not None:
        sys.executable = str(start.python)
        sys.prefix = sys.exec_prefix = str(start.python.parent.parent)
    sys.argv[:] = ["-m"]
    sys.orig_argv[:] = [sys.executable, "-m", RUNTIME]
    for name in [n for n in sys.modules if n == RUNTIME or n.partition(".")[0] == "modalflow"]:
        # The app may bring a modalflow of its own; and a new process has the runtime under no name but __main__.
        del sys.modules[name]
    package, _, module = RUNTIME.rpartition(".")
    vars(sys.modules[package]).pop(module, None)
    main: Any = types.ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = main
    thread: Any = threading.main_thread()
    if hasattr(thread, "_set_native_id"):
        # A fork leaves it as it was.
        thread._set_native_id()
    runner: Any = runpy
    runner._run_module_as_main(RUNTIME)


def _path(start: Start, base: Iterable[str]) -> list[str]:
    """The module path as ``python -m`` would have it."""
    packages = set(site.getsitepackages())
    standard = [entry for entry in base if entry not in packages]
    path = [str(Path.cwd()), *_entries(start.variables.get("PYTHONPATH", ""))]
    if not start.site:
        return [*path, *base]
    before = list(sys.path)
    try:
        sys.path[:] = []
        for folder in start.site:
            site.addsitedir(str(folder), set())
        own = list(sys.path)
    finally:
        sys.path[:] = before
    return [*path, *standard, *own, *(entry for entry in base if entry in packages)]


def _first_on_path(start: Start, base: Iterable[str]) -> list[str]:
    """The folders where modules are looked for before the host's."""
    known = set(base)
    entries = [str(Path.cwd()), *_entries(start.variables.get("PYTHONPATH", "")), *map(str, start.site)]
    return [entry for entry in dict.fromkeys(entries) if entry not in known]


def _importable(folder: str) -> Iterator[str]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            name, _, rest = entry.name.partition(".")
            if not rest or rest.endswith(("py", "pyc", "so")):
                yield name


def _entries(path: str) -> list[str]:
    return [entry for entry in path.split(os.pathsep) if entry]


@contextlib.contextmanager
def _recorded() -> Iterator[set[str]]:
    """Record the names of environment variables that are looked up, in whichever way."""
    names: set[str] = set()
    kind: Any = type(os.environ)
    look_up = kind.__getitem__

    def recording(self: Any, name: str) -> Any:
        names.add(name)
        return look_up(self, name)

    kind.__getitem__ = recording
    try:
        yield names
    finally:
        kind.__getitem__ = look_up
