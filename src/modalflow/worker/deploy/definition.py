"""What one deployment consists of: a Worker, with its profiles and what they have in common.

Owns the fields and the file that a user writes them in. Connects to nothing.
"""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from modalflow.config import values, variables
from modalflow.config.settings import app_name
from modalflow.errors import ConfigError, DeployError, ModalflowError
from modalflow.names import DEFAULT_PROFILE
from modalflow.support.described import describe
from modalflow.worker.deploy.profile import Profile

#: Between a file and the name of a Worker in it, as in `modal deploy`.
SEPARATOR = "::"


@dataclass(frozen=True)
class Worker:
    """Everything that `modalflow deploy` deploys as one app. A profile `default` is added where there is none."""

    profiles: Sequence[Profile] = (Profile(),)
    requirements: Path | str | None = None
    """A file with what tasks need besides Airflow, instead of the packages of the environment that deploys."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of all tasks, below those of the profiles. Plain values: what is secret is for Secrets."""
    app: str = ""
    """Name of the worker app. Empty: `[modal_executor] app_name`."""

    def __post_init__(self) -> None:
        place = "profiles of modalflow.Worker"
        profiles = self.profiles
        if not isinstance(profiles, list | tuple) or not all(isinstance(profile, Profile) for profile in profiles):
            raise ConfigError(place, profiles, "a list of modalflow.Profile")
        names = [profile.name for profile in profiles]
        for name in names:
            if names.count(name) > 1:
                raise ConfigError(place, names, f"names that differ: {name!r} is there twice")
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
    """Return the Worker of ``FILE`` or ``FILE::NAME``; DeployError says in a line what is wrong with the file."""
    text, _, name = given.partition(SEPARATOR)
    path = Path(text).expanduser().resolve()
    if not path.is_file():
        raise DeployError(f"{text} does not exist; expected a Python file with a modalflow.Worker(...) in it.")
    return _worker_in(_imported(path), text, name)


def _imported(path: Path) -> ModuleType:
    """Import a file as `modal deploy` does: what lies beside it can be imported."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise DeployError(f"{path} is no Python file; expected one with a modalflow.Worker(...) in it, e.g. worker.py.")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    # Not over one that is there: a file may be called as a package is.
    sys.modules.setdefault(path.stem, module)
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise DeployError(f"{error.filename or path}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        said = str(error) if isinstance(error, ModalflowError) else describe(error)
        raise DeployError(f"{path}, line {_line_of(error, path)}: {said}") from error
    except SystemExit as error:
        raise DeployError(f"{path}, line {_line_of(error, path)}: it ends the program ({describe(error)}).") from error
    return module


def _line_of(error: BaseException, path: Path) -> int | str:
    """The last line of the user's own file on the way to an error."""
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
        raise DeployError(f"{file} has more than one modalflow.Worker; say which: {choices}.")
    return next(iter(different.values()))
