"""The first line of a function call's log: what it runs on, with which resources, and its page on Modal.

Does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from modalflow.cost import figures
from modalflow.names import dashboard_url

#: The beginning of the line, by which readers of logs recognise it.
STARTED = "Started on Modal"

#: The variables in which Modal's runtime describes a container.
_REGION, _CLOUD = "MODAL_REGION", "MODAL_CLOUD_PROVIDER"

_NOT_SIZED: Mapping[str, int] = MappingProxyType({})

#: The name that a local control plane gives instead of a cloud.
_LOCAL = "local"


def first_line(
    *,
    function_call_id: str,
    profile: str,
    resources: Mapping[str, Any],
    environ: Mapping[str, str],
    sized: Mapping[str, int] = _NOT_SIZED,
) -> tuple[str, dict[str, Any]]:
    """Return (text, fields) of the line.

    ``resources`` and ``sized`` are as in a ``Submission``; Modal's default applies to a missing resource. ``environ``
    is the container's.
    """
    cloud = environ.get(_CLOUD, "").removeprefix("CLOUD_PROVIDER_").lower()
    region = environ.get(_REGION, "")
    is_local = cloud == _LOCAL
    asked = {name: resources[name] for name in ("cpu", "memory", "gpu") if resources.get(name)}
    text = f"{STARTED}, profile {profile}"
    if size := ", ".join(_sizes(asked, sized)):
        text += f": {size}"
    if is_local:
        text += ", on a local control plane"
    elif region:
        text += f", in {region}" + (f" ({cloud})" if cloud else "")
    fields: dict[str, Any] = dict(asked)
    if not is_local:
        fields |= {"region": region, "cloud": cloud, "dashboard": dashboard_url(function_call_id)}
        text += f". {fields['dashboard']}"
    return text, {name: value for name, value in fields.items() if value}


def _sizes(resources: Mapping[str, Any], sized: Mapping[str, int]) -> Iterator[str]:
    if cpu := _range(resources.get("cpu")):
        yield f"{cpu} cores{_from(sized.get('cpu'))}"
    if memory := _range(resources.get("memory")):
        amount = resources["memory"]
        is_one = sized.get("memory") and isinstance(amount, int | float)
        yield f"{figures.memory(amount) if is_one else f'{memory} MiB'}{_from(sized.get('memory'))}"
    if gpu := resources.get("gpu"):
        yield f"gpu {gpu}"


def _from(runs: int | None) -> str:
    """Return the origin of a size; empty if it does not follow from runs."""
    return f", from {runs} run{'' if runs == 1 else 's'}" if runs else ""


def _range(value: Any) -> str:
    """Return the text of a number, or of a reservation and its limit."""
    parts = value if isinstance(value, list | tuple) else [value]
    return " to ".join(f"{part:g}" for part in parts if isinstance(part, int | float))
