"""An import of Airflow's that costs each zygote much and that few tasks need: a task that needs it imports it.

Airflow's operators import libcst, 62 modules with 6 MB, for one function: it removes a decorator from the source of a
task that runs in another Python (``PythonVirtualenvOperator``). Must not import Airflow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

from modalflow.airflow_compat import replaced as rows

_LIBRARY = "libcst"

#: The base of a class in Airflow's module.
_BASE = "CSTTransformer"


@contextmanager
def without_libcst() -> Iterator[None]:
    """Leave libcst out of Airflow's imports within this context, if nothing has imported it yet."""
    if _LIBRARY in sys.modules:
        yield
        return
    finder = _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class _Finder(MetaPathFinder):
    """Finds the one module that imports libcst."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec of Airflow's module with another loader; None for every other module."""
        if fullname != rows.REMOVE_TASK_DECORATOR.module:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WithoutLibrary(spec.loader)
        return spec


class _WithoutLibrary(Loader):
    """Executes a module with an empty libcst, and replaces its function by one that executes it with the real one."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Return what the real loader makes."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Execute the module; with the real libcst if it needs more of it than one name."""
        stand_in: Any = ModuleType(_LIBRARY)
        setattr(stand_in, _BASE, object)
        name = rows.REMOVE_TASK_DECORATOR.attribute
        # No code of the user's runs meanwhile.
        sys.modules[_LIBRARY] = stand_in
        try:
            self._loader.exec_module(module)
        except (AttributeError, ImportError):
            sys.modules.pop(_LIBRARY, None)
            self._loader.exec_module(module)
            return
        finally:
            if sys.modules.get(_LIBRARY) is stand_in:
                del sys.modules[_LIBRARY]
        if hasattr(module, name):
            setattr(module, name, self._later(module, name))

    def _later(self, module: ModuleType, name: str) -> Callable[..., Any]:
        def later(*args: Any, **kwargs: Any) -> Any:
            assert module.__spec__ is not None
            whole = module_from_spec(module.__spec__)
            self._loader.exec_module(whole)
            return getattr(whole, name)(*args, **kwargs)

        return later
