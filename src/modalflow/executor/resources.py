"""What a task may ask of Modal in ``executor_config={"modal": {…}}``: checked, and made canonical.

Equal requests become equal ``Resources``, because each distinct set of options is a container pool of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from modalflow.config import LONGEST_TIMEOUT, a_known_option
from modalflow.errors import WorkloadRejectedError

PLACE = 'executor_config["modal"]'


@dataclass(frozen=True)
class Resources:
    """Options of ``Function.with_options`` in a canonical order; hashable."""

    options: tuple[tuple[str, Any], ...] = ()

    def as_arguments(self) -> dict[str, Any]:
        """The keyword arguments for ``Function.with_options``."""
        return {name: list(value) if name == "region" else value for name, value in self.options}


@dataclass(frozen=True)
class TaskRequest:
    """What one task asks for."""

    resources: Resources
    env: Mapping[str, str]
    profile: str | None


def read_executor_config(executor_config: Mapping[str, Any] | None) -> TaskRequest:
    """Check a task's ``executor_config``; raise WorkloadRejectedError naming the key, its value and what was expected.

    Keys beside ``modal`` belong to other executors and are left alone.
    """
    wanted = (executor_config or {}).get("modal") or {}
    if not isinstance(wanted, Mapping):
        raise _rejected(PLACE, wanted, "a dict such as {'gpu': 'T4', 'memory': 1024}")
    for name in wanted:
        if name not in KEYS:
            hint = " The image cannot be changed per task: deploy a profile with it." if name == "image" else ""
            raise _rejected(f"a key of {PLACE}", name, a_known_option(str(name), set(KEYS)) + hint)
    checked = {name: KEYS[name].check(f"{PLACE}[{name!r}]", value) for name, value in wanted.items()}
    env = checked.pop("env", {})
    profile = checked.pop("profile", None)
    return TaskRequest(Resources(tuple(sorted(checked.items()))), env, profile)


def _rejected(place: str, value: object, expected: str) -> WorkloadRejectedError:
    return WorkloadRejectedError(f"{place} is {value!r}; expected {expected}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _amount(kind: type, example: str) -> Callable[[str, Any], Any]:
    def check(place: str, value: Any) -> Any:
        parts = tuple(value) if isinstance(value, list | tuple) else (value,)
        fits = len(parts) in (1, 2) and all(_is_number(part) and part > 0 for part in parts)
        if not fits or (kind is int and any(part != int(part) for part in parts)):
            raise _rejected(place, value, f"a positive number or (request, limit), e.g. {example}")
        parts = tuple(kind(part) for part in parts)
        return parts if len(parts) == 2 else parts[0]

    return check


def _timeout(place: str, value: Any) -> int:
    if not _is_number(value) or not 1 <= value <= LONGEST_TIMEOUT:
        raise _rejected(place, value, f"seconds from 1 to {LONGEST_TIMEOUT}, e.g. 3600")
    return int(value)


def _word(example: str) -> Callable[[str, Any], str]:
    def check(place: str, value: Any) -> str:
        if not isinstance(value, str) or not value.strip():
            raise _rejected(place, value, f"a text such as {example!r}")
        return value.strip()

    return check


def _regions(place: str, value: Any) -> tuple[str, ...]:
    regions = (value,) if isinstance(value, str) else value
    if not isinstance(regions, list | tuple) or not regions or not all(isinstance(r, str) and r for r in regions):
        raise _rejected(place, value, "a region or a list of regions, e.g. 'us-east'")
    return tuple(sorted(regions))


def _env(place: str, value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(part, str) for pair in value.items() for part in pair):
        raise _rejected(place, value, "a dict of texts, e.g. {'TZ': 'UTC'}")
    return dict(value)


@dataclass(frozen=True)
class Key:
    """One key of ``executor_config={"modal": {…}}``."""

    check: Callable[[str, Any], Any]
    """Called with (where, value); returns the canonical value or raises WorkloadRejectedError."""
    example: str
    """As it is written in a DAG file."""
    description: str
    unit: str = ""


KEYS: Mapping[str, Key] = {
    "cpu": Key(
        _amount(float, "2 or (1, 4)"),
        "(1, 4)",
        "Processor cores: how many are reserved, or a pair of what is reserved and the most that may be used.",
        "cores",
    ),
    "memory": Key(
        _amount(int, "1024 (MiB) or (1024, 2048)"),
        "4096",
        "Memory: how much is reserved, or a pair of what is reserved and the limit at which the container is killed.",
        "MiB",
    ),
    "gpu": Key(_word("H100:2"), '"H100:2"', "GPU model, with `:n` for several.", "GPUs"),
    "timeout": Key(
        _timeout,
        "3600",
        "How long Modal lets the function call run, from its begin in a container.",
        "seconds",
    ),
    "region": Key(_regions, '["us-east", "us-west"]', "Region, or a list of them, in which the container may be."),
    "cloud": Key(_word("aws"), '"aws"', "Cloud provider on which the container is to be."),
    "env": Key(
        _env,
        '{"HF_HOME": "/tmp/hf"}',
        "Environment variables of this task, above those of `worker_env`. They travel with the work, so that they do "
        "not cost a container pool of their own.",
    ),
    "profile": Key(
        _word("default"),
        '"default"',
        "Deployed profile (image and defaults) to run on. Without it the task's Airflow queue picks the profile of "
        "that name, else `default` is used.",
    ),
}
