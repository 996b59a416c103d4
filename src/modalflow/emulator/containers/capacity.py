"""The capacity of this machine, what each container has of it, and the reason why another one waits.

Owns cores, memory and GPUs as numbers. When a container starts or ends is pools.py's; that it keeps to its memory limit
is memory.py's.

Only what a function asks for is occupied: one that names no ``cpu`` or ``memory`` (an eighth of a core and 128 MiB on
Modal: its guide, "Reserving CPU and memory") takes what is left over. One that asks for more cores or memory than there
are gets all of them instead of waiting for ever. GPUs are those that were declared; where none were, functions that
want one run without it. All of this is this control plane's own: Modal's machines are as many as it takes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from modal_proto import api_pb2

#: As the SDK writes "any GPU will do" (modal's guide, "GPU acceleration").
ANY_GPU = "ANY"

#: Old names of GPU types, by the number that clients before ``gpu_type`` sent alone (modal_proto's GPUType).
_GPU_PREFIX = "GPU_TYPE_"


def machine_cores() -> float:
    """Return how many cores this process may use."""
    return float(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def machine_memory_mib() -> int:
    """Return the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20


def read_gpus(declared: Iterable[str]) -> dict[str, int]:
    """Read ``H100=2``, or ``H100`` for one; ValueError says what is wrong with which."""
    found: dict[str, int] = {}
    for each in declared:
        kind, has_count, count = each.partition("=")
        kind = kind.strip().upper()
        if not kind or (has_count and not (count.strip().isdecimal() and int(count) > 0)):
            raise ValueError(f"gpu is {each!r}; expected a type and how many there are, e.g. H100=2")
        found[kind] = found.get(kind, 0) + (int(count) if has_count else 1)
    return found


@dataclass(frozen=True)
class Need:
    """What one container of a function occupies. 0 of something is whatever is left over."""

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
            # "H100!" is an H100 that Modal must not replace by a better one.
            gpu=kind.upper().removesuffix("!").replace("_", "-"),
            gpus=max(gpu.count, 1) if kind else 0,
        )


@dataclass
class Grant:
    """What one container has."""

    owner: str
    """What it runs, for people."""
    cores: float = 0.0
    memory_mib: int = 0
    gpu: str = ""
    devices: tuple[int, ...] = ()
    """The GPUs, counted over all that were declared in their order."""


@dataclass
class Capacity:
    """The machine's cores, memory and GPUs. ``gpus`` is None where none were declared."""

    cores: float
    memory_mib: int
    containers: int
    """How many containers there may be."""
    gpus: Mapping[str, int] | None = None
    _grants: dict[str, Grant] = field(default_factory=dict)

    def impossible(self, need: Need) -> str:
        """Return why the need can never be met, empty if it can."""
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
        """Return what the need has to wait for, empty if it fits now."""
        if len(self._grants) >= self.containers:
            return self._said("a container", len(self._grants), self.containers, list(self))
        cores, memory = self._cut(need)
        if cores > self.cores - self.used_cores + 1e-9:
            return self._said(f"{cores:g} cores", self.used_cores, self.cores, [g for g in self if g.cores])
        if memory > self.memory_mib - self.used_memory_mib:
            users = [g for g in self if g.memory_mib]
            return self._said(f"{memory} MiB of memory", self.used_memory_mib, self.memory_mib, users)
        if self.gpus is not None and need.gpus and self._devices(need) is None:
            users = [g for g in self if g.gpu and need.gpu in (g.gpu, ANY_GPU)]
            total = sum(count for kind, count in self.gpus.items() if need.gpu in (kind, ANY_GPU))
            return self._said(f"{need.gpus} {_name(need.gpu)}", sum(len(g.devices) for g in users), total, users)
        return ""

    def take(self, container_id: str, need: Need, owner: str) -> Grant:
        """Give a container what it needs; there must be no obstacle."""
        cores, memory = self._cut(need)
        kind, devices = (self._devices(need) or ("", ())) if self.gpus is not None and need.gpus else ("", ())
        grant = self._grants[container_id] = Grant(owner, cores, memory, kind, devices)
        return grant

    def give_back(self, container_id: str) -> None:
        self._grants.pop(container_id, None)

    def grant(self, container_id: str) -> Grant | None:
        return self._grants.get(container_id)

    def without(self, container_ids: Iterable[str]) -> Capacity:
        """Return how things would be if these containers had ended."""
        gone = set(container_ids)
        return replace(self, _grants={each: grant for each, grant in self._grants.items() if each not in gone})

    def notes(self, need: Need) -> list[str]:
        """Return in what a container that gets this differs from what it asked for."""
        said = []
        if need.cores > self.cores:
            said.append(f"asks for {need.cores:g} cores and gets all {self.cores:g}")
        if need.memory_mib > self.memory_mib:
            said.append(f"asks for {need.memory_mib} MiB of memory and gets all {self.memory_mib}")
        if need.gpus and self.gpus is None:
            said.append(f"asks for {need.gpus} {_name(need.gpu)} and runs without: no GPU is declared here (--gpu)")
        return said

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
        """The GPUs to give, all of one type, None if there are not enough free ones."""
        taken = {device for grant in self for device in grant.devices}
        first = 0
        for kind, count in (self.gpus or {}).items():
            free = [device for device in range(first, first + count) if device not in taken]
            first += count
            if need.gpu in (kind, ANY_GPU) and len(free) >= need.gpus:
                return kind, tuple(free[: need.gpus])
        return None

    @staticmethod
    def _said(what: str, used: float, total: float, users: list[Grant]) -> str:
        by: dict[str, int] = {}
        for grant in users:
            by[grant.owner] = by.get(grant.owner, 0) + 1
        names = ", ".join(f"{owner} ({count})" if count > 1 else owner for owner, count in by.items())
        return f"{what}: {used:g} of {total:g} are in use by {names}"


def _name(gpu: str) -> str:
    return "GPU of any type" if gpu == ANY_GPU else gpu
