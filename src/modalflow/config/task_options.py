"""What a task may ask of Modal in ``executor_config={"modal": {…}}``: the keys, and how a DAG file writes them.

Owns the table and the helper ``modal_config``, which checks where the mistake is made: while the DAG file is parsed.
The executor checks again with the same table, as nobody has to use the helper. Must stay cheap to import.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

from modalflow.config import values
from modalflow.errors import ConfigError, a_known_name, shown

if TYPE_CHECKING:
    from typing import Unpack

PLACE = 'executor_config["modal"]'

#: Keys that a note names, and characters of each.
_NAMED, _LONGEST_KEY = 8, 60


@dataclass(frozen=True)
class Key:
    """One key of ``executor_config={"modal": {…}}``."""

    check: values.Check
    example: str
    """As it is written in a DAG file."""
    description: str
    unit: str = ""
    is_option: bool = True
    """Whether it is one of those of Modal's whose every set is a container pool of its own."""


KEYS: Mapping[str, Key] = {
    "cpu": Key(
        values.cores,
        "(1, 4)",
        "Processor cores: how many are reserved, or a pair of what is reserved and the most that may be used.",
        "cores",
    ),
    "memory": Key(
        values.mebibytes,
        '"4GiB"',
        "Memory: how much is reserved, or a pair of what is reserved and the limit at which the container is killed. A "
        "number, or a text with its unit.",
        "MiB",
    ),
    "gpu": Key(values.gpu, '"H100:2"', "GPU model, with `:n` for several.", "GPUs"),
    "timeout": Key(
        values.seconds(),
        "3600",
        "How long Modal lets the function call run, from its begin in a container.",
        "seconds",
    ),
    "region": Key(
        values.regions, '["us-east", "us-west"]', "Region, or a list of them, in which the container may be."
    ),
    "cloud": Key(values.cloud, '"aws"', "Cloud provider on which the container is to be."),
    "secrets": Key(
        values.object_names("a Secret", "huggingface"),
        '["huggingface"]',
        "Names of Secrets whose variables the container gets, instead of those of the profile.",
    ),
    "volumes": Key(
        values.volume_names,
        '{"/models": "models"}',
        "Volumes to mount, path → name, instead of those of the profile.",
    ),
    "submit_attempts": Key(
        values.count(1, 100, "submissions", 3),
        "5",
        "How many times this task is submitted before the executor gives up, where no container has begun it. Instead "
        "of `[modal_executor] submit_attempts`; costs none of the task's own `retries`.",
        "submissions",
        is_option=False,
    ),
    "env": Key(
        values.variables,
        '{"HF_HOME": "/tmp/hf"}',
        "Environment variables of this task, above those of its profile and of `worker_env`. They travel with the "
        "work, so that they do not cost a container pool of their own.",
        is_option=False,
    ),
    "profile": Key(
        values.object_name("a profile", "default"),
        '"default"',
        "Deployed profile (image and defaults) to run on. Without it the task's Airflow queue picks the profile.",
        is_option=False,
    ),
}

_IN_PROFILE = " It is the same for all tasks of a profile: deploy one with it, and name that as 'profile' or 'queue'."

#: What somebody means who writes another key.
_HINTS: Mapping[str, str] = {
    "image": " The image cannot be changed per task: deploy a profile with it.",
    "retries": " A task's own `retries` apply once it has begun; 'submit_attempts' is for what no container has begun.",
    **dict.fromkeys(("concurrency", "ephemeral_disk", "min_containers", "max_containers", "preload"), _IN_PROFILE),
}


def check_options(wanted: object, place: str = PLACE) -> dict[str, Any]:
    """Return what a task asks for in its canonical form; ConfigError names the key, its value and what was expected."""
    if not isinstance(wanted, Mapping):
        raise ConfigError(place, wanted, "a dict such as {'gpu': 'T4', 'memory': 1024}")
    for name in wanted:
        if name not in KEYS:
            hint = _HINTS.get(name, "")
            raise ConfigError(
                f"a key of {place}", name, a_known_name(name if isinstance(name, str) else "", KEYS) + hint
            )
    # None is what a key has that is not there: a helper of the user's may pass it on.
    given = {name: value for name, value in wanted.items() if value is not None}
    return {name: KEYS[name].check(f"{place}[{name!r}]", value) for name, value in given.items()}


#: Keys of ``executor_config`` that other executors read → what does the same on Modal.
_OTHERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("pod_override", "pod_template_file", "KubernetesExecutor"),
        "for resources use modal_config(cpu=…, memory=…, gpu=…), for an image deploy a profile with it",
    ),
    **dict.fromkeys(
        ("overrides", "containerOverrides", "networkConfiguration", "capacityProviderStrategy"),
        "for resources and variables use modal_config(cpu=…, memory=…, env=…)",
    ),
    **dict.fromkeys(("Modal", "modalflow", "ModalExecutor", "modal_executor"), "the key is 'modal'"),
}


def read_by_others(executor_config: Mapping[Any, Any]) -> str:
    """Return a note on the keys of an ``executor_config`` that ModalExecutor does not read; empty if there are none."""
    keys = [(key if isinstance(key, str) else shown(key))[:_LONGEST_KEY] for key in executor_config if key != "modal"]
    if not keys:
        return ""
    named = ", ".join(map(repr, keys[:_NAMED])) + (f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else "")
    hints = [f"{key!r} belongs under 'modal'" for key in keys[:_NAMED] if key in KEYS]
    hints += dict.fromkeys(f"instead of {key!r}: {_OTHERS[key]}" for key in keys[:_NAMED] if key in _OTHERS)
    joined = "; ".join(hints)
    told = f"{joined[:1].upper()}{joined[1:]}. " if hints else ""
    return (
        f"ModalExecutor does not read these keys of the task's executor_config: {named}. They have no effect here. "
        f"{told}"
        'What a task asks of Modal is executor_config=modalflow.modal_config(…), e.g. modal_config(memory="4GiB").'
    )


class ModalOptions(TypedDict, total=False):
    """The keywords of ``modal_config``: see docs/configuration.md for each."""

    cpu: float | Sequence[float]
    memory: int | str | Sequence[int | str]
    gpu: str
    timeout: float
    region: str | Sequence[str]
    cloud: str
    secrets: str | Sequence[str]
    volumes: Mapping[str, str]
    submit_attempts: int
    env: Mapping[str, str]
    profile: str


def modal_config(**options: Unpack[ModalOptions]) -> dict[str, Any]:
    """Return the ``executor_config`` of a task that asks this of Modal, checked: ConfigError says what is wrong.

    Merges with what is meant for other executors: ``executor_config={**modal_config(gpu="T4"), "KubernetesExecutor":
    …}``.
    """
    checked = check_options(options, "modal_config")
    if said := values.unknown_gpu(checked.get("gpu")):
        warnings.warn(f"modal_config: {said}", stacklevel=2)
    # A serialized DAG knows no tuples.
    return {"modal": {name: list(value) if isinstance(value, tuple) else value for name, value in checked.items()}}
