"""A profile: one deployed Function, with its image and its defaults.

Owns the fields and their checks. ``app_builder`` deploys it; the executor decides which tasks run on it.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import modal

from modalflow.config import mounts, values
from modalflow.config.values import LONGEST_TIMEOUT, MOST_INPUTS
from modalflow.errors import ConfigError
from modalflow.names import DEFAULT_PROFILE

#: The default number of tasks that share a container. A GPU is only shared if the profile sets ``concurrency``.
USUAL_CONCURRENCY = 4


def _optional(check: values.Check) -> values.Check:
    return lambda place, value: None if value is None else check(place, value)


_containers = _optional(values.count(0, None, "containers", 1))

_CHECKS: Mapping[str, values.Check] = {
    "name": values.object_name("a profile", "gpu"),
    "cpu": _optional(values.or_auto(values.cores)),
    "memory": _optional(values.or_auto(values.mebibytes)),
    "memory_growth": _optional(values.growth),
    "memory_limit": _optional(values.most_memory),
    "gpu": _optional(values.gpus),
    "timeout": values.seconds(),
    "timeout_growth": _optional(values.growth),
    "timeout_limit": _optional(values.seconds()),
    "startup_timeout": _optional(values.seconds()),
    "region": _optional(values.regions),
    "cloud": _optional(values.cloud),
    "env": values.variables,
    "concurrency": _optional(values.count(1, MOST_INPUTS, "tasks that share a container", 4)),
    "min_containers": _containers,
    "max_containers": _optional(values.count(1, None, "containers", 20)),
    "buffer_containers": _containers,
    "scaledown_window": _optional(values.seconds(2, 3600, 60)),
    "ephemeral_disk": _optional(values.count(1, None, "MiB of disk", 524_288)),
    "preload": values.modules,
    "memory_snapshot": values.flag,
    "nonpreemptible": values.flag,
    "image_has_airflow": values.flag,
}

#: The fields that a container and the executor need to know.
_GRANTED = (
    *("cpu", "memory", "gpu", "timeout", "region", "cloud", "concurrency", "nonpreemptible"),
    *("memory_growth", "memory_limit", "timeout_growth", "timeout_limit"),
)
_PASSED_ON = (
    "cpu",
    "memory",
    "timeout",
    "startup_timeout",
    "region",
    "cloud",
    "min_containers",
    "max_containers",
    "buffer_containers",
    "scaledown_window",
    "ephemeral_disk",
    "nonpreemptible",
)
_NOT_IN_FACTS = ("name", "image", "image_has_airflow", "secrets", "volumes", "env")


@dataclass(frozen=True, kw_only=True)
class Profile:
    """A deployed Function with its defaults; None stands for Modal's own default. Wrong values raise ConfigError."""

    name: str = field(default=DEFAULT_PROFILE, kw_only=False)
    """The name by which a task's Airflow `queue` or its `executor_config` selects it."""
    image: modal.Image | None = None
    """The image of its containers; None: that of the Worker. Airflow is added unless ``image_has_airflow``."""
    image_has_airflow: bool = False
    """Use ``image`` unchanged: it has the scheduler's minor version of Airflow."""
    cpu: float | Sequence[float] | Literal["auto"] | None = None
    """Cores, or (reserved, limit). "auto": by the last runs of each task."""
    memory: int | str | Sequence[int | str] | None = None
    """MiB, a text such as "4GiB", or (reserved, limit). "auto": by the last runs of each task."""
    memory_growth: float | None = None
    """After a try that ran out of memory, its next one asks for this many times as much."""
    memory_limit: int | str | None = None
    """The most memory that ``memory_growth`` and "auto" ask for, in MiB or as a text. None: the most of Modal's."""
    gpu: str | Sequence[str] | None = None
    """A GPU, such as "H100:2", or several in the order of preference."""
    timeout: int = LONGEST_TIMEOUT
    """Seconds that a function call may take."""
    timeout_growth: float | None = None
    """After a try that ended at its timeout, its next one may take this many times as long."""
    timeout_limit: int | None = None
    """Seconds that ``timeout_growth`` leads to at most. None: the longest of Modal's."""
    startup_timeout: int | None = None
    """Seconds that a container may take to start."""
    region: str | Sequence[str] | None = None
    cloud: str | None = None
    secrets: Sequence[modal.Secret] = ()
    volumes: Mapping[str, modal.Volume | modal.CloudBucketMount] = field(default_factory=dict)
    """Mounts: path → Volume or CloudBucketMount."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Environment variables of its tasks. Plain values, which are recorded: use ``secrets`` for what is secret."""
    concurrency: int | None = None
    """The number of tasks that share a container, each in its own processes. None: 4, or 1 with a GPU."""
    min_containers: int | None = None
    max_containers: int | None = None
    buffer_containers: int | None = None
    scaledown_window: int | None = None
    """Seconds after which an idle container stops."""
    ephemeral_disk: int | None = None
    """MiB."""
    preload: Sequence[str] = ()
    """Modules that every container imports once, before its first task."""
    memory_snapshot: bool = False
    """Start containers from a snapshot of their memory."""
    nonpreemptible: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigError("modalflow.Profile: name", self.name, "a text, e.g. 'gpu'")
        for name, check in _CHECKS.items():
            self._set(name, check(self._place(name), getattr(self, name)))
        if self.concurrency is None:
            self._set("concurrency", 1 if self.gpu else USUAL_CONCURRENCY)
        values.check_limits(self._place, vars(self))
        self._check_objects()
        self._check_containers()

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def _place(self, name: str) -> str:
        return f"{name} of modalflow.Profile({self.name!r})"

    def _check_objects(self) -> None:
        if self.image is not None and not isinstance(self.image, modal.Image):
            raise ConfigError(self._place("image"), self.image, "a modal.Image, e.g. modal.Image.debian_slim()")
        if not isinstance(self.secrets, list | tuple) or not all(isinstance(s, modal.Secret) for s in self.secrets):
            raise ConfigError(
                self._place("secrets"), self.secrets, "a list of modal.Secret, e.g. [modal.Secret.from_name('aws')]"
            )
        mountable = modal.Volume | modal.CloudBucketMount
        if not isinstance(self.volumes, Mapping) or not all(isinstance(v, mountable) for v in self.volumes.values()):
            expected = "a dict of paths and modal.Volume, e.g. {'/models': modal.Volume.from_name('models')}"
            raise ConfigError(self._place("volumes"), self.volumes, expected)
        place = self._place("volumes")
        self._set("volumes", mounts.check_all(place, self.volumes))
        self._set("secrets", tuple(self.secrets))

    def _check_containers(self) -> None:
        if self.min_containers and self.max_containers and self.min_containers > self.max_containers:
            expected = f"at most its max_containers, {self.max_containers}"
            raise ConfigError(self._place("min_containers"), self.min_containers, expected)
        if self.nonpreemptible and self.gpu:
            raise ConfigError(self._place("nonpreemptible"), True, "False with a GPU: Modal has no such containers")
        if self.image is None and self.image_has_airflow:
            raise ConfigError(self._place("image_has_airflow"), True, "False without an image")

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of ``App.function``, except name, image, volumes and concurrency."""
        passed = {name: None if (value := getattr(self, name)) == values.AUTO else value for name in _PASSED_ON}
        return passed | {
            "gpu": list(self.gpu) if isinstance(self.gpu, tuple) else self.gpu,
            "secrets": list(self.secrets),
            "enable_memory_snapshot": self.memory_snapshot,
        }

    def granted(self) -> dict[str, Any]:
        """Return what its tasks get, as JSON types: cpu, memory (MiB), gpu, timeout, region, cloud, concurrency."""
        return {name: value for name in _GRANTED if (value := _plain(getattr(self, name)))}

    def facts(self) -> dict[str, Any]:
        """Return the fields whose changes `modalflow deploy` shows, as JSON types; a digest of each variable."""
        facts = {
            f.name: _plain(value)
            for f in dataclasses.fields(self)
            if f.name not in _NOT_IN_FACTS and (value := getattr(self, f.name)) not in (None, (), [], False)
        }
        if self.image is not None:
            facts["image"] = "its own" if self.image_has_airflow else "its own, with Airflow"
        if self.secrets:
            facts["secrets"] = [secret.name or "(without a name)" for secret in self.secrets]
        if self.volumes:
            facts["volumes"] = {path: _mounted(volume) for path, volume in self.volumes.items()}
        if self.env:
            facts["env"] = {name: digest(value) for name, value in self.env.items()}
        return facts


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _mounted(volume: modal.Volume | modal.CloudBucketMount) -> str:
    if isinstance(volume, modal.CloudBucketMount):
        # The SDK does not expose its name.
        return "a bucket"
    return volume.name or "(without a name)"


def digest(text: str) -> str:
    """Return a few characters that change when a text changes."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
