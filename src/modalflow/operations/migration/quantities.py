"""Quantities of Kubernetes as Modal's, and its labels of nodes as Modal's GPUs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

_QUANTITY = re.compile(r"(?P<amount>\d+(?:\.\d*)?|\.\d+)(?P<unit>[KMGTPE]i|[mkMGTPE]|)")
_UNITS: Mapping[str, float] = {
    "": 1,
    "m": 1e-3,
    "k": 1e3,
    **{unit: 1e3 ** (power + 1) for power, unit in enumerate("MGTPE", 1)},
    **{f"{unit}i": 1024.0 ** (power + 1) for power, unit in enumerate("KMGTPE")},
}

#: Labels of nodes by which a pod chooses its GPU or its type of machine.
GPU_LABELS = (
    "cloud.google.com/gke-accelerator",
    "nvidia.com/gpu.product",
    "k8s.amazonaws.com/accelerator",
    "karpenter.k8s.aws/instance-gpu-name",
    "accelerator",
    "gpu",
)
MACHINE_LABELS = (
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "karpenter.k8s.aws/instance-family",
)

#: What a value of such a label contains → Modal's name. The first one that fits.
_GPUS: tuple[tuple[str, str], ...] = (
    (r"b300", "B300"),
    (r"b200", "B200"),
    (r"h200", "H200"),
    (r"h100", "H100"),
    (r"a100.*80", "A100-80GB"),
    (r"a100", "A100-40GB"),
    (r"l40s", "L40S"),
    (r"rtx-?pro-?6000", "RTX-PRO-6000"),
    (r"a10g?(?!\d)", "A10"),
    (r"(?<!\w)l4(?!\d)|-l4(?!\d)", "L4"),
    (r"(?<!\w)t4(?!\w)", "T4"),
)

#: Types of machines of AWS, Google and Azure.
_MACHINES: tuple[tuple[str, str], ...] = (
    (r"p6-b300", "B300"),
    (r"p6-b200|a4-highgpu", "B200"),
    (r"p5en?\.|p5en?$|a3-ultragpu", "H200"),
    (r"p5|a3-|nd96isr_h100|_h100_", "H100"),
    (r"p4de|a2-ultragpu|a100_v4", "A100-80GB"),
    (r"p4d|a2-highgpu|nd96asr", "A100-40GB"),
    (r"g6e", "L40S"),
    (r"g6|g2-standard", "L4"),
    (r"g5", "A10"),
    (r"g4dn|_t4_v3", "T4"),
)


def quantity(value: object) -> float | None:
    """Return a quantity such as ``500m``, ``2`` or ``4Gi`` in its base unit; None if it is none."""
    match = _QUANTITY.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if match is None or isinstance(value, bool):
        return None
    return float(match["amount"]) * _UNITS[match["unit"]]


def cores(value: object) -> float | None:
    """Return a quantity of processors."""
    return quantity(value)


def mebibytes(value: object) -> int | None:
    """Return a quantity of memory in MiB, rounded up."""
    found = quantity(value)
    return None if found is None else math.ceil(found / 1024**2)


def written_memory(mib: int) -> int | str:
    """Return memory as one writes it in a DAG file."""
    return f"{mib // 1024}GiB" if mib % 1024 == 0 else mib


def gpu_of_node(label: str, value: str) -> str:
    """Return Modal's GPU for a label of a node; empty if the label means none that Modal has."""
    known = _MACHINES if label in MACHINE_LABELS else _GPUS
    return next((gpu for pattern, gpu in known if re.search(pattern, value.lower())), "")
