"""``executor_config={"KubernetesExecutor": {…}}``: the form of Airflow 1, which Airflow 3 no longer reads."""

from __future__ import annotations

from collections.abc import Mapping

from modalflow.operations.migration.findings import Kind
from modalflow.operations.migration.pods import Pod, read_pod
from modalflow.operations.migration.static_values import Model, Static, Unknown

#: Key → (the list of the pod it belongs to, its name there).
_RESOURCES: Mapping[str, tuple[str, str]] = {
    "request_cpu": ("requests", "cpu"),
    "request_memory": ("requests", "memory"),
    "limit_cpu": ("limits", "cpu"),
    "limit_memory": ("limits", "memory"),
    "limit_gpu": ("limits", "nvidia.com/gpu"),
}
_SPEC = {"node_selectors": "node_selector", "tolerations": "tolerations", "affinity": "affinity", "volumes": "volumes"}
_CONTAINER = {"image": "image", "volume_mounts": "volume_mounts", "image_pull_policy": "image_pull_policy"}
_METADATA = {"labels": "labels", "annotations": "annotations", "namespace": "namespace"}


def read_legacy(static: Static) -> Pod:
    """Return the options and findings of such a dict, as of the pod that it described."""
    if static.model is None:
        pod, subject, reason = Pod(), "KubernetesExecutor", "is no dict."
        if isinstance(static.value, Unknown):
            subject, reason = static.value.source, static.value.why
        pod.found(static, Kind.DECIDE, subject, reason)
        return pod
    given = dict(static.model.fields)
    resources: dict[str, dict[str, Static]] = {"requests": {}, "limits": {}}
    for key, (kind, name) in _RESOURCES.items():
        if key in given:
            resources[kind][name] = given.pop(key)
    container = _taken(given, _CONTAINER)
    container["resources"] = _dict(static, {kind: _dict(static, values) for kind, values in resources.items()})
    spec = _taken(given, _SPEC)
    spec["containers"] = Static((_dict(static, container),), static.place)
    pod = read_pod(_dict(static, {"metadata": _dict(static, _taken(given, _METADATA)), "spec": _dict(static, spec)}))
    for key, value in given.items():
        pod.found(value, Kind.DECIDE, f"KubernetesExecutor[{key!r}]", "has no counterpart that modalflow knows.")
    return pod


def _taken(given: dict[str, Static], names: Mapping[str, str]) -> dict[str, Static]:
    return {name: given.pop(key) for key, name in names.items() if key in given}


def _dict(at: Static, fields: Mapping[str, Static]) -> Static:
    return Static(Model("", fields), at.place)
