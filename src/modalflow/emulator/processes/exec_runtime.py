"""Turn a fork of the template into Modal's container runtime, as if newly started.

Owns the state of a new process (environment, module path, ``__main__``, arguments) and the check for differences
between a fork and a new process. If there is a difference, a new interpreter replaces the fork in the same root.
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

from modalflow.emulator.processes.container_spec import ContainerSpec

RUNTIME = "modal._container_entrypoint"

#: Modules that the runtime imports late.
ALSO_NEEDED = (
    "asyncio",
    "concurrent.futures.thread",
    "modal.cls",
    "modal.functions",
    "ssl",
)

#: Prefixes of variables that the interpreter, the loader or the C library reads only when a process starts.
_READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_TUNABLES")

#: Variables from either group that have no effect there, or whose effect this module reproduces.
_GIVEN_EFFECT = ("PYTHONPATH", "HOME")


@dataclass(frozen=True)
class Preloaded:
    """The imports of the template and their conditions."""

    modules: frozenset[str]
    """Names of top-level modules."""
    variables: frozenset[str]
    """Names of environment variables that were read during the imports."""
    environ: Mapping[str, str]
    """All variables at that time."""
    path: tuple[str, ...]
    """The module path, without the entries from the environment."""

    def unfit(self, spec: ContainerSpec) -> str:
        """Return how a fork would differ from a new process, or ``""``. Call it inside the container's root."""
        read_at_start = {n for n in (*spec.variables, *self.environ) if n.startswith(_READ_AT_START)}
        for name in sorted((self.variables | read_at_start).difference(_GIVEN_EFFECT)):
            if spec.variables.get(name) != self.environ.get(name):
                return f"its variable {name} differs"
        for folder in _first_on_path(spec, self.path):
            for name in _importable(folder):
                if name in self.modules:
                    return f"{folder} has a module {name}"
        return ""


def preload() -> Preloaded:
    """Import the runtime and its dependencies; ImportError if they cannot be imported."""
    environ = dict(os.environ)
    path = tuple(entry for entry in sys.path if entry not in _entries(environ.get("PYTHONPATH", "")))
    with _recorded() as variables:
        importlib.import_module(RUNTIME)
        for name in ALSO_NEEDED:
            with contextlib.suppress(ImportError):
                importlib.import_module(name)
    modules = {name.partition(".")[0] for name in sys.modules} - {"__main__", "modalflow"}
    # These objects live as long as the process: collecting garbage among them in a child would only copy memory.
    gc.collect()
    gc.freeze()
    return Preloaded(frozenset(modules), frozenset(variables), environ, path)


def execute(spec: ContainerSpec) -> None:
    """Replace this process with a new interpreter for the runtime, or with the given program."""
    for name in ("SIGPIPE", "SIGXFSZ"):
        # The interpreter ignores these signals, and its children would inherit that.
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_DFL)
    if spec.program:
        # Without its own root, a container has its working directory elsewhere.
        os.chdir(spec.rootfs.cwd)
        if spec.user != (0, 0):
            user, group = spec.user
            os.setgroups([])
            os.setgid(group)
            os.setuid(user)
        try:
            os.execvpe(spec.program[0], spec.program, spec.variables)
        except OSError as error:
            # As a shell reports it.
            os.write(2, f"{spec.program[0]}: {error.strerror}\n".encode())
            os._exit(127 if isinstance(error, FileNotFoundError) else 126)
    python = str(spec.python or sys.executable)
    os.execve(python, [python, "-m", RUNTIME], spec.variables)


def limit(limits: Mapping[str, int]) -> None:
    """Set the resource limits of this process."""
    for name, value in limits.items():
        resource.setrlimit(getattr(resource, name), (value, value))


def run(spec: ContainerSpec, preloaded: Preloaded) -> None:
    """Run the runtime in this process until it returns or raises."""
    os.environ.clear()
    os.environ.update(spec.variables)
    if hasattr(time, "tzset"):
        time.tzset()
    sys.path[:] = _path(spec, preloaded.path)
    importlib.invalidate_caches()
    if spec.python is not None:
        sys.executable = str(spec.python)
        sys.prefix = sys.exec_prefix = str(spec.python.parent.parent)
    sys.argv[:] = ["-m"]
    sys.orig_argv[:] = [sys.executable, "-m", RUNTIME]
    for name in [n for n in sys.modules if n == RUNTIME or n.partition(".")[0] == "modalflow"]:
        # The app may bring its own modalflow; and in a new process the runtime is known as __main__ only.
        del sys.modules[name]
    package, _, module = RUNTIME.rpartition(".")
    vars(sys.modules[package]).pop(module, None)
    main: Any = types.ModuleType("__main__")
    main.__builtins__ = sys.modules["builtins"]
    sys.modules["__main__"] = main
    thread: Any = threading.main_thread()
    if hasattr(thread, "_set_native_id"):
        # A fork keeps the parent's value.
        thread._set_native_id()
    runner: Any = runpy
    runner._run_module_as_main(RUNTIME)


def _path(spec: ContainerSpec, base: Iterable[str]) -> list[str]:
    """Return the module path that ``python -m`` would set."""
    packages = set(site.getsitepackages())
    standard = [entry for entry in base if entry not in packages]
    path = [str(Path.cwd()), *_entries(spec.variables.get("PYTHONPATH", ""))]
    if not spec.site:
        return [*path, *base]
    before = list(sys.path)
    try:
        sys.path[:] = []
        for folder in spec.site:
            site.addsitedir(str(folder), set())
        own = list(sys.path)
    finally:
        sys.path[:] = before
    return [*path, *standard, *own, *(entry for entry in base if entry in packages)]


def _first_on_path(spec: ContainerSpec, base: Iterable[str]) -> list[str]:
    """Return the folders that are searched for modules before the host's."""
    known = set(base)
    entries = [str(Path.cwd()), *_entries(spec.variables.get("PYTHONPATH", "")), *map(str, spec.site)]
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
    """Record the names of all environment variables that are read."""
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
