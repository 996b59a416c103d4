"""The capacity of this machine, what each container has of it, and the reason why another one waits.

Owns cores, memory and GPUs as numbers. The start and end of containers are decided in pools.py; memory limits are
enforced in memory_watch.py.

Only explicit requests are counted. A function without ``cpu`` or ``memory`` (an eighth of a core and 128 MiB on Modal:
its guide, "Reserving CPU and memory") uses the rest. A function with a larger request than the machine gets all of it
instead of waiting forever. GPUs must be declared; without a declaration, functions with a GPU run without it. All of
this belongs to this control plane: Modal adds machines as needed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modal_proto import api_pb2

#: The SDK's name for any GPU type (Modal's guide, "GPU acceleration").
ANY_GPU = "ANY"

#: Old names of GPU types, by the number sent by clients before ``gpu_type`` (modal_proto's GPUType).
_GPU_PREFIX = "GPU_TYPE_"


def machine_cores() -> float:
    """Return the number of cores available to this process."""
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def machine_memory_mib() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def read_gpus(declared: Iterable[str]) -> dict[str, int]:
    """Read ``H100=2``, or ``H100`` for one; the ValueError names the wrong part and the reason."""
    found: dict[str, int] = {}
    for each in declared:
        kind, has_count, count = each.partition("=")
        kind = kind.strip().upper()
        if not kind or (has_count and not (count.strip().isdecimal() and int(count) > 0)):
            raise ValueError(f"gpu is {each!r}; expected a type and a number, e.g. H100=2")
        found[kind] = found.get(kind, 0) + (int(count) if has_count else 1)
    return found


@dataclass(frozen=True)
class Need:
    """The resources occupied by one container of a function. 0 means the rest."""

    cores: float = 0.0
    memory_mib: int = 0
    gpus: int = 0
    gpu: str = ""

    @classmethod
    def of(cls, resources: api_pb2.Resources) -> Need:
        gpu = resources.gpu_config
        kind = gpu.gpu_type or (api_pb2.GPUType.Name(gpu.type).removeprefix(_GPU_PREFIX) if gpu.type else "")
        return cls(
            cores=resources.milli_cpu / 1000,
            memory_mib=resources.memory_mb,
            # "H100!" is an H100 without replacement by a better one on Modal.
            gpu=kind.upper().removesuffix("!").replace("_", "-"),
            gpus=max(gpu.count, 1) if kind else 0,
        )


@dataclass
class Grant:
    """The resources of one container."""

    owner: str
    """The name of the function, for logs."""
    cores: float = 0.0
    memory_mib: int = 0
    gpu: str = ""
    devices: tuple[int, ...] = ()
    """The GPUs, numbered in the order of their declaration."""


@dataclass
class Capacity:
    """The machine's cores, memory and GPUs. ``gpus`` is None if none were declared."""

    cores: float
    memory_mib: int
    containers: int
    """The maximum number of containers."""
    gpus: Mapping[str, int] | None = None
    _grants: dict[str, Grant] = field(default_factory=dict)

    def impossible(self, need: Need) -> str:
        """Return the reason if the need can never be met, empty if it can."""
        if self.gpus is None or not need.gpus:
            return ""
        there = sum(self.gpus.values()) if need.gpu == ANY_GPU else self.gpus.get(need.gpu, 0)
        if need.gpus <= there:
            return ""
        declared = ", ".join(f"{kind}={count}" for kind, count in self.gpus.items()) or "none"
        return (
            f"it asks for {need.gpus} {_name(need.gpu)} and this control plane has {there} "
            f"(declared: {declared}); declare it with --gpu {need.gpu}={need.gpus}, or ask for less"
        )

    def obstacle(self, need: Need) -> str:
        """Return the resource in use by others, empty if the need fits now."""
        if len(self._grants) >= self.containers:
            return self._in_use("a container", len(self._grants), self.containers, list(self))
        cores, memory = self._cut(need)
        if cores > self.cores - self.used_cores + 1e-9:
            return self._in_use(f"{cores:g} cores", self.used_cores, self.cores, [g for g in self if g.cores])
        if memory > self.memory_mib - self.used_memory_mib:
            users = [g for g in self if g.memory_mib]
            return self._in_use(f"{memory} MiB of memory", self.used_memory_mib, self.memory_mib, users)
        if self.gpus is not None and need.gpus and self._devices(need) is None:
            users = [g for g in self if g.gpu and need.gpu in (g.gpu, ANY_GPU)]
            total = sum(count for kind, count in self.gpus.items() if need.gpu in (kind, ANY_GPU))
            return self._in_use(f"{need.gpus} {_name(need.gpu)}", sum(len(g.devices) for g in users), total, users)
        return ""

    def assign(self, container_id: str, need: Need, owner: str) -> Grant:
        """Grant a container its need; there must be no obstacle."""
        cores, memory = self._cut(need)
        kind, devices = (self._devices(need) or ("", ())) if self.gpus is not None and need.gpus else ("", ())
        grant = self._grants[container_id] = Grant(owner, cores, memory, kind, devices)
        return grant

    def release(self, container_id: str) -> None:
        self._grants.pop(container_id, None)

    def grant(self, container_id: str) -> Grant | None:
        return self._grants.get(container_id)

    def without(self, container_ids: Iterable[str]) -> Capacity:
        """Return a copy of the capacity without these containers."""
        gone = set(container_ids)
        return replace(self, _grants={each: grant for each, grant in self._grants.items() if each not in gone})

    def notes(self, need: Need) -> list[str]:
        """Return the differences between the need and the grant."""
        notes = []
        if need.cores > self.cores:
            notes.append(f"asks for {need.cores:g} cores and gets all {self.cores:g}")
        if need.memory_mib > self.memory_mib:
            notes.append(f"asks for {need.memory_mib} MiB of memory and gets all {self.memory_mib}")
        if need.gpus and self.gpus is None:
            notes.append(f"asks for {need.gpus} {_name(need.gpu)} and runs without: no GPU is declared here (--gpu)")
        return notes

    def __iter__(self) -> Iterator[Grant]:
        return iter(self._grants.values())

    @property
    def used_cores(self) -> float:
        return sum(grant.cores for grant in self)

    @property
    def used_memory_mib(self) -> int:
        return sum(grant.memory_mib for grant in self)

    def _cut(self, need: Need) -> tuple[float, int]:
        return min(need.cores, self.cores), min(need.memory_mib, self.memory_mib)

    def _devices(self, need: Need) -> tuple[str, tuple[int, ...]] | None:
        """Return the GPUs for a need, all of one type, None if too few are free."""
        taken = {device for grant in self for device in grant.devices}
        first = 0
        for kind, count in (self.gpus or {}).items():
            free = [device for device in range(first, first + count) if device not in taken]
            first += count
            if need.gpu in (kind, ANY_GPU) and len(free) >= need.gpus:
                return kind, tuple(free[: need.gpus])
        return None

    @staticmethod
    def _in_use(what: str, used: float, total: float, users: list[Grant]) -> str:
        by: dict[str, int] = {}
        for grant in users:
            by[grant.owner] = by.get(grant.owner, 0) + 1
        names = ", ".join(f"{owner} ({count})" if count > 1 else owner for owner, count in by.items())
        return f"{what}: {used:g} of {total:g} are in use by {names}"


def _name(gpu: str) -> str:
    return "GPU of any type" if gpu == ANY_GPU else gpu
