"""What a task asks of Modal in its ``executor_config``: the options of a container pool, and the rest.

Equal options become equal ``Resources``, because each distinct set of options is a container pool of its own.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

from modalflow.config.task_options import KEYS, check_options, read_by_others
from modalflow.errors import ConfigError, WorkloadRejectedError

#: The keys that say how the size of a task grows (``sizing``).
TERMS = ("memory_growth", "memory_limit", "timeout_growth", "timeout_limit")

#: With any of these options, a task gets a container to itself, so it does not share its resources.
_UNSHARED = frozenset({"cpu", "memory", "gpu"})


@dataclass(frozen=True)
class Resources:
    """Options of ``Function.with_options`` in a canonical order; hashable."""

    options: tuple[tuple[str, Hashable], ...] = ()

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Resources:
        """Return the options that ``task_options`` has checked."""
        return cls(tuple(sorted((name, _frozen(value)) for name, value in options.items())))

    def plain(self) -> dict[str, Any]:
        """Return the options as JSON types."""
        return {name: _thawed(name, value) for name, value in self.options}

    def beyond(self, granted: Mapping[str, Any]) -> Resources:
        """Return the requests beyond a profile's grants."""
        left = tuple((name, value) for name, value in self.options if _frozen(granted.get(name)) != value)
        return self if len(left) == len(self.options) else Resources(left)

    @property
    def unshared(self) -> bool:
        """Whether the container must not be shared with other work."""
        return any(name in _UNSHARED for name, _ in self.options)

    def __str__(self) -> str:
        return ", ".join(f"{name}={_thawed(name, value)!r}" for name, value in self.options) or "the profile's own"


NO_OPTIONS = Resources()


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return tuple(sorted(value.items()))
    frozen: Hashable = tuple(value) if isinstance(value, list) else value
    return frozen


def _thawed(name: str, value: Any) -> Any:
    if name == "volumes":
        return dict(value)
    return list(value) if isinstance(value, tuple) else value


@dataclass(frozen=True)
class TaskRequest:
    """What one task asks for."""

    resources: Resources = Resources()
    env: Mapping[str, str] | None = None
    profile: str | None = None
    submit_attempts: int | None = None
    terms: Resources = NO_OPTIONS
    """How its size grows, and up to which limits."""
    note: str = ""
    """A warning for the task's log."""


_NOTHING = TaskRequest()


def read_executor_config(executor_config: object) -> TaskRequest:
    """Check a task's ``executor_config``; raise WorkloadRejectedError naming the key, its value and what was expected.

    Other keys than ``modal`` belong to other executors, with which a DAG may be shared: a note names them.
    """
    if executor_config is None:
        return _NOTHING
    if not isinstance(executor_config, Mapping):
        wrong = ConfigError("executor_config", executor_config, "a dict, e.g. modalflow.modal_config(gpu='T4')")
        raise WorkloadRejectedError(str(wrong))
    note = read_by_others(executor_config)
    wanted = executor_config.get("modal")
    if not wanted:
        return TaskRequest(note=note) if note else _NOTHING
    try:
        checked = check_options(wanted)
    except ConfigError as error:
        raise WorkloadRejectedError(str(error)) from error
    return TaskRequest(
        Resources.of({name: value for name, value in checked.items() if KEYS[name].is_option}),
        env=checked.get("env"),
        profile=checked.get("profile"),
        submit_attempts=checked.get("submit_attempts"),
        terms=Resources.of({name: value for name, value in checked.items() if name in TERMS}),
        note=note,
    )
