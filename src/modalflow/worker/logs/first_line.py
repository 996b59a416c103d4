"""The first line of a function call's log: what it runs on, with which resources, and its page on Modal.

Does no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

#: The beginning of the line, by which readers of logs recognise it.
STARTED = "Started on Modal"

#: The variables in which Modal's runtime describes a container.
_REGION, _CLOUD = "MODAL_REGION", "MODAL_CLOUD_PROVIDER"

#: The name that a local control plane gives instead of a cloud.
_LOCAL = "local"


def first_line(
    *, function_call_id: str, profile: str, resources: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str, dict[str, Any]]:
    """Return (text, fields) of the line.

    ``resources`` are as in ``Submission.resources``; Modal's default applies to a missing one. ``environ`` is the
    container's.
    """
    cloud = environ.get(_CLOUD, "").removeprefix("CLOUD_PROVIDER_").lower()
    region = environ.get(_REGION, "")
    is_local = cloud == _LOCAL
    asked = {name: resources[name] for name in ("cpu", "memory", "gpu") if resources.get(name)}
    text = f"{STARTED}, profile {profile}"
    if size := ", ".join(_sizes(asked)):
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


def dashboard_url(object_id: str) -> str:
    """Return the address of an object's page on Modal, as the SDK's ``get_dashboard_url()`` does."""
    return f"https://modal.com/id/{object_id}"


def _sizes(resources: Mapping[str, Any]) -> Iterator[str]:
    if cpu := _range(resources.get("cpu")):
        yield f"{cpu} cores"
    if memory := _range(resources.get("memory")):
        yield f"{memory} MiB"
    if gpu := resources.get("gpu"):
        yield f"gpu {gpu}"


def _range(value: Any) -> str:
    """Return the text of a number, or of a reservation and its limit."""
    parts = value if isinstance(value, list | tuple) else [value]
    return " to ".join(f"{part:g}" for part in parts if isinstance(part, int | float))
