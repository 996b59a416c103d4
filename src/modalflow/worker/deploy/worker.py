"""The Worker that a user deploys: its profiles and their common settings.

Owns the fields and reads the user's file that sets them. Connects to nothing.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from modalflow.config import values, variables
from modalflow.config.option_parsers import app_name
from modalflow.errors import ConfigError, DeployError, ModalflowError
from modalflow.names import DEFAULT_PROFILE
from modalflow.support.described import describe
from modalflow.worker.deploy.profile import Profile

#: Separates a file from the name of a Worker in it, as in `modal deploy`.
SEPARATOR = "::"


@dataclass(frozen=True)
class Worker:
    """Everything that `modalflow deploy` deploys as one app. If no profile is called `default`, one is added."""

    profiles: Sequence[Profile] = (Profile(),)
    requirements: Path | str | None = None
    """A requirements file for tasks, instead of the packages of the environment that deploys."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of all tasks; a profile's override them. Plain values: use Secrets for what is secret."""
    app: str = ""
    """The name of the worker app. If empty, `[modal_executor] app_name` is used."""

    def __post_init__(self) -> None:
        place = "profiles of modalflow.Worker"
        profiles = self.profiles
        if not isinstance(profiles, list | tuple) or not all(isinstance(profile, Profile) for profile in profiles):
            raise ConfigError(place, profiles, "a list of modalflow.Profile")
        names = [profile.name for profile in profiles]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(place, names, f"names that differ: {name!r} occurs twice")
        if DEFAULT_PROFILE not in names:
            profiles = [Profile(), *profiles]
        object.__setattr__(self, "profiles", tuple(profiles))
        env = values.variables("env of modalflow.Worker", self.env)
        object.__setattr__(self, "env", env)
        for profile in profiles:
            together = f"env of modalflow.Worker and modalflow.Profile({profile.name!r})"
            variables.check(together, {**env, **profile.env})
        if self.requirements is not None:
            object.__setattr__(self, "requirements", Path(self.requirements).expanduser())
        if self.app:
            object.__setattr__(self, "app", app_name("app of modalflow.Worker", self.app))


def read_worker(given: str) -> Worker:
    """Return the Worker of ``FILE`` or ``FILE::NAME``; raise DeployError with one line if the file is wrong."""
    text, _, name = given.partition(SEPARATOR)
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise DeployError(f"{text} does not exist; expected a Python file with a modalflow.Worker(...) in it.")
    return _worker_in(_imported(path), text, name)


def _imported(path: Path) -> ModuleType:
    """Import a file as `modal deploy` does: it can import the files beside it."""
    loader = _UncachedLoader(path.stem, str(path)) if path.suffix == ".py" else None
    spec = importlib.util.spec_from_file_location(path.stem, path, loader=loader)
    if spec is None or spec.loader is None:
        raise DeployError(f"{path} is no Python file; expected one with a modalflow.Worker(...) in it, e.g. worker.py.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    # Never replace a module: a file may have the name of a package.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise DeployError(f"{error.filename or path}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        problem = str(error) if isinstance(error, ModalflowError) else describe(error)
        raise DeployError(f"{path}, line {_line_of(error, path)}: {problem}") from error
    except SystemExit as error:
        raise DeployError(f"{path}, line {_line_of(error, path)}: it ends the program ({describe(error)}).") from error
    return module


class _UncachedLoader(SourceFileLoader):
    """Compiles a file at each import: compiled code on disk counts as fresh after an edit in the same second."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _line_of(error: BaseException, path: Path) -> int | str:
    """Return the last line of the user's own file in the traceback of an error."""
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == path]
    return lines[-1] if lines and lines[-1] is not None else "?"


def _worker_in(module: ModuleType, file: str, name: str) -> Worker:
    found = {each: value for each, value in vars(module).items() if isinstance(value, Worker)}
    if name:
        if name not in found:
            there = ", ".join(found) or "none"
            raise DeployError(f"{file} has no modalflow.Worker called {name!r}; there are: {there}.")
        return found[name]
    different = {id(value): value for value in found.values()}
    if not found:
        raise DeployError(f"{file} has no modalflow.Worker; expected a line such as `worker = modalflow.Worker()`.")
    if len(different) > 1:
        choices = " or ".join(f"{file}{SEPARATOR}{each}" for each in found)
        raise DeployError(f"{file} has more than one modalflow.Worker; choose one: {choices}.")
    return next(iter(different.values()))
