"""All workloads that are killed under: one joins by its class standing here."""

from __future__ import annotations

from tests.durability.calls import CallWorkload
from tests.durability.objects import OBJECTS
from tests.durability.workload import Workload

WORKLOADS: tuple[type[Workload], ...] = (*OBJECTS, CallWorkload)
