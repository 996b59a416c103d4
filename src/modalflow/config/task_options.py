"""Options of a task for Modal, in ``executor_config={"modal": {…}}``: the keys and their forms in a DAG file.

Owns the table and the helper ``modal_config``. The helper checks options when Airflow parses the DAG file. The executor
checks them again with the same table, because the helper is optional. Must stay cheap to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from modalflow.config import values
from modalflow.errors import ConfigError, a_known_name, shown

if TYPE_CHECKING:
    from typing import Unpack

PLACE = 'executor_config["modal"]'

#: Limits of a note: number of keys, and characters of each.
_NAMED, _LONGEST_KEY = 8, 60


@dataclass(frozen=True)
class Key:
    """One key of ``executor_config={"modal": {…}}``."""

    check: values.Check
    example: str
    """The form in a DAG file."""
    description: str
    unit: str = ""
    is_option: bool = True
    """Whether it is an option of Modal: each set of options is a separate container pool."""


KEYS: Mapping[str, Key] = {
    "cpu": Key(
        values.or_auto(values.cores),
        "(1, 4)",
        'Processor cores: the reservation, or a pair of reservation and limit. `"auto"`: by the task\'s last runs.',
        "cores",
    ),
    "memory": Key(
        values.or_auto(values.mebibytes),
        '"4GiB"',
        "Memory: the reservation, or a pair of reservation and limit. Modal kills the container at the limit. Each is "
        'a number, or a text with its unit. `"auto"`: by the task\'s last runs.',
        "MiB",
    ),
    "memory_growth": Key(
        values.growth,
        "2",
        "After a try that ran out of memory, the next one asks for this many times as much.",
        is_option=False,
    ),
    "memory_limit": Key(
        values.most_memory,
        '"16GiB"',
        'The most memory that `memory_growth` and `"auto"` ask for. Default: 336 GiB.',
        "MiB",
        is_option=False,
    ),
    "gpu": Key(values.gpu, '"H100:2"', "GPU model, with `:n` for several.", "GPUs"),
    "timeout": Key(
        values.seconds(),
        "3600",
        "Longest run of the function call, from its beginning in a container.",
        "seconds",
    ),
    "timeout_growth": Key(
        values.growth,
        "2",
        "After a try that Modal ended at its `timeout`, the next one may take this many times as long.",
        is_option=False,
    ),
    "timeout_limit": Key(
        values.seconds(),
        "14400",
        "The longest timeout that `timeout_growth` leads to. Default: Modal's longest, a day.",
        "seconds",
        is_option=False,
    ),
    "region": Key(values.regions, '["us-east", "us-west"]', "Region of the container, or a list of allowed regions."),
    "cloud": Key(values.cloud, '"aws"', "Cloud provider of the container."),
    "secrets": Key(
        values.object_names("a Secret", "huggingface"),
        '["huggingface"]',
        "Names of Secrets. They replace those of the profile.",
    ),
    "volumes": Key(
        values.volume_names,
        '{"/models": "models"}',
        "Volumes to mount, path → name. They replace those of the profile.",
    ),
    "submit_attempts": Key(
        values.count(1, 100, "submissions", 3),
        "5",
        "How many times the executor submits this task before it gives up, as long as no container has begun it. "
        "Overrides `[modal_executor] submit_attempts`, and uses none of the task's own `retries`.",
        "submissions",
        is_option=False,
    ),
    "infrastructure_retries": Key(
        values.count(0, 100, "runs after a lost container", 3),
        "5",
        "How often this task runs again, without using one of its own `retries`, if it loses its container through no "
        "fault of its own. Overrides its profile and `[modal_executor] infrastructure_retries`. 0: never.",
        "runs",
        is_option=False,
    ),
    "env": Key(
        values.variables,
        '{"HF_HOME": "/tmp/hf"}',
        "Environment variables of this task. They override those of its profile and of `worker_env`, and need no "
        "separate container pool.",
        is_option=False,
    ),
    "profile": Key(
        values.object_name("a profile", "default"),
        '"default"',
        "Deployed profile (image and defaults) for the task. Default: the profile of the task's Airflow queue.",
        is_option=False,
    ),
}

_IN_PROFILE = " Set it in a profile for all its tasks, and select this profile with 'profile' or 'queue'."

#: Advice for likely mistakes.
_HINTS: Mapping[str, str] = {
    "image": " A task cannot change its image: deploy a profile with the image.",
    "retries": " The task's own `retries` apply after its beginning; 'submit_attempts' applies before it, "
    "'infrastructure_retries' to lost containers.",
    **dict.fromkeys(("concurrency", "ephemeral_disk", "min_containers", "max_containers", "preload"), _IN_PROFILE),
}


def check_options(wanted: object, place: str = PLACE) -> dict[str, Any]:
    """Return a task's options in canonical form. ConfigError names the key, its value and the expected form."""
    if not isinstance(wanted, Mapping):
        raise ConfigError(place, wanted, "a dict such as {'gpu': 'T4', 'memory': 1024}")
    for name in wanted:
        if name not in KEYS:
            hint = _HINTS.get(name, "")
            raise ConfigError(
                f"a key of {place}", name, a_known_name(name if isinstance(name, str) else "", KEYS) + hint
            )
    # A helper of the user may pass None for a missing key.
    given = {name: value for name, value in wanted.items() if value is not None}
    checked = {name: KEYS[name].check(f"{place}[{name!r}]", value) for name, value in given.items()}
    values.check_limits(lambda name: f"{place}[{name!r}]", checked)
    return checked


#: Keys of other executors in ``executor_config`` → their equivalent on Modal.
_OTHERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("pod_override", "pod_template_file", "KubernetesExecutor"),
        "use modal_config(cpu=…, memory=…, gpu=…) for resources, and a profile for an image (`modalflow migrate "
        "DAG_FOLDER` prints the new lines)",
    ),
    **dict.fromkeys(
        ("overrides", "containerOverrides", "networkConfiguration", "capacityProviderStrategy"),
        "use modal_config(cpu=…, memory=…, env=…) for resources and variables",
    ),
    **dict.fromkeys(("Modal", "modalflow", "ModalExecutor", "modal_executor"), "the key is 'modal'"),
}


def advice_on(key: str) -> str:
    """Return what to write instead of another executor's key in ``executor_config``; empty for an unknown key."""
    return _OTHERS.get(key, "")


def read_by_others(executor_config: Mapping[Any, Any]) -> str:
    """Return a note on the keys of other executors in an ``executor_config``; empty if there are none."""
    keys = [(key if isinstance(key, str) else shown(key))[:_LONGEST_KEY] for key in executor_config if key != "modal"]
    if not keys:
        return ""
    named = ", ".join(map(repr, keys[:_NAMED])) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    hints = [f"{key!r} belongs under 'modal'" for key in keys[:_NAMED] if key in KEYS]
    hints += dict.fromkeys(f"instead of {key!r}: {_OTHERS[key]}" for key in keys[:_NAMED] if key in _OTHERS)
    joined = "; ".join(hints)
    hinted = f"{joined[:1].upper()}{joined[1:]}. " if hints else ""
    return (
        f"ModalExecutor ignores these keys of the task's executor_config: {named}. "
        f"{hinted}"
        'Write options for Modal as executor_config=modalflow.modal_config(…), e.g. modal_config(memory="4GiB").'
    )


class ModalOptions(TypedDict, total=False):
    """The keywords of ``modal_config``: see docs/configuration.md for each."""

    cpu: float | Sequence[float] | Literal["auto"]
    memory: int | str | Sequence[int | str]
    memory_growth: float
    memory_limit: int | str
    gpu: str
    timeout: float
    timeout_growth: float
    timeout_limit: float
    region: str | Sequence[str]
    cloud: str
    secrets: str | Sequence[str]
    volumes: Mapping[str, str]
    submit_attempts: int
    infrastructure_retries: int
    env: Mapping[str, str]
    profile: str


def modal_config(**options: Unpack[ModalOptions]) -> dict[str, Any]:
    """Return a checked ``executor_config`` with these options. Raises ConfigError for a mistake.

    You can merge it with keys of other executors: ``executor_config={**modal_config(gpu="T4"), "KubernetesExecutor":
    …}``.
    """
    checked = check_options(options, "modal_config")
    if problem := values.unknown_gpu(checked.get("gpu")):
        warnings.warn(f"modal_config: {problem}", stacklevel=2)
    # A serialized DAG knows no tuples.
    return {"modal": {name: list(value) if isinstance(value, tuple) else value for name, value in checked.items()}}
