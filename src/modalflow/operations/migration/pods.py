"""A pod of the KubernetesExecutor as options of ``modal_config``, with a finding for each of its settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from modalflow.config import values
from modalflow.config.task_options import KEYS
from modalflow.errors import ConfigError
from modalflow.operations.migration import pod_fields, quantities
from modalflow.operations.migration.findings import Finding, Kind
from modalflow.operations.migration.static_values import Model, Static, Unknown

_SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|CREDENTIAL|API_?KEY|PRIVATE|ACCESS_KEY|_DSN$", re.IGNORECASE)
_GPU_RESOURCES = ("nvidia.com/gpu", "amd.com/gpu")

#: Advice for fields whose value is known only while the file runs.
_UNREAD: Mapping[str, str] = {
    "image": "deploy a profile with this image, and name it: profile='…'. The image ",
}

#: The container that runs the task, by the rule of Airflow's provider.
_BASE = "base"


@dataclass
class Pod:
    """The options that follow from a pod, and a finding for each of its settings."""

    options: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    image: str = ""
    gpus: tuple[Static, str] | None = None
    """The number of GPUs, and the name of the resource."""

    def found(self, at: Static, kind: Kind, what: str, text: str) -> None:
        self.findings.append(Finding(at.place, kind, what, text))

    def option(self, at: Static, name: str, value: Any, what: str) -> None:
        """Set an option, if Modal accepts its value."""
        try:
            KEYS[name].check(name, value)
        except ConfigError as error:
            self.found(at, Kind.DECIDE, what, str(error))
        else:
            self.options[name] = value
            self.found(at, Kind.CHANGE, what, f"{name}={value!r}")


def fields_of(static: Static | None) -> dict[str, Static]:
    """Return the fields of a model or a dict, by their names in Python; those with the value None are left out."""
    model = static.model if static is not None else None
    if model is None:
        return {}
    given = {_snake(name): value for name, value in model.fields.items()}
    return {name: value for name, value in given.items() if value.value is not None}


def read_pod(static: Static) -> Pod:
    """Return the options and findings of a ``V1Pod``, or of a dict with the same fields."""
    pod = Pod()
    for name, unknown in static.unknowns():
        assert isinstance(unknown.value, Unknown)
        what = f"{_snake(name)} {unknown.value.source}".strip()
        pod.found(unknown, Kind.DECIDE, what, _UNREAD.get(_snake(name), "") + unknown.value.why)
    if static.model is None and not pod.findings:
        pod.found(static, Kind.DECIDE, "pod_override", "is no V1Pod.")
    fields = fields_of(static)
    _by_table(pod, fields_of(fields.get("metadata")), pod_fields.METADATA, "metadata")
    spec = fields_of(fields.get("spec"))
    volumes = {name: each for each in _items(spec, "volumes") if (name := _text(fields_of(each).get("name")))}
    containers = _items(spec, "containers")
    base = _base(containers)
    for container in containers:
        if container is base:
            _container(pod, container, volumes)
        else:
            name = _text(fields_of(container).get("name")) or "?"
            text = "has no counterpart: a task has one container. Start the program in the task, or run it elsewhere."
            pod.found(container, Kind.DECIDE, f"sidecar {name!r}", text)
    _node(pod, spec)
    if (deadline := spec.get("active_deadline_seconds")) is not None and isinstance(deadline.value, int):
        pod.option(deadline, "timeout", deadline.value, "active_deadline_seconds")
    read = {"containers", "volumes", "node_selector", "active_deadline_seconds"}
    _by_table(pod, {name: value for name, value in spec.items() if name not in read}, pod_fields.SPEC, "spec")
    # Request and limit can come from one value.
    pod.findings = sorted(dict.fromkeys(pod.findings), key=lambda finding: (finding.place.path, finding.place.line))
    return pod


def _base(containers: tuple[Static, ...]) -> Static | None:
    named = [each for each in containers if _text(fields_of(each).get("name")) == _BASE]
    return next(iter(named or containers), None)


def _container(pod: Pod, container: Static, volumes: Mapping[str, Static]) -> None:
    fields = fields_of(container)
    _resources(pod, fields_of(fields.get("resources")))
    if (image := fields.get("image")) is not None and isinstance(image.value, str):
        pod.image = image.value
        pod.options["profile"] = name = profile_name(image.value)
        pod.found(
            image,
            Kind.DECIDE,
            f"image {image.value!r}",
            f"profile={name!r}: deploy a profile with this image, see below",
        )
    _variables(pod, fields)
    for mount in _items(fields, "volume_mounts"):
        _mount(pod, mount, volumes)
    read = {"resources", "image", "env", "env_from", "volume_mounts"}
    _by_table(
        pod, {name: value for name, value in fields.items() if name not in read}, pod_fields.CONTAINER, "container"
    )


def profile_name(image: str) -> str:
    """Return a name for a profile with this image: the last part of its path, and its tag."""
    name, _, tag = image.rpartition("/")[2].partition("@")[0].partition(":")
    name += f"-{tag}" if tag not in ("", "latest") else ""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64].strip("-._") or "default"


def _resources(pod: Pod, fields: Mapping[str, Static]) -> None:
    requests, limits = (_plain(fields.get(name)) for name in ("requests", "limits"))
    for resource, option, read in (("cpu", "cpu", _cores), ("memory", "memory", _memory)):
        asked, most = requests.pop(resource, None), limits.pop(resource, None)
        first = asked or most
        if first is None:
            continue
        # Without a request, the request of Kubernetes is the limit.
        amounts = [read(each.value) for each in (first, most or first)]
        what = f"{resource} {' to '.join(dict.fromkeys(str(each.value) for each in (asked, most) if each is not None))}"
        if None in amounts:
            pod.found(first, Kind.DECIDE, what, "is no quantity")
        else:
            has_range = asked is not None and most is not None and amounts[0] != amounts[1]
            pod.option(first, option, tuple(amounts) if has_range else amounts[0], what)
    for resource in _GPU_RESOURCES:
        if (count := limits.pop(resource, requests.pop(resource, None))) is not None:
            requests.pop(resource, None)
            pod.gpus = (count, resource)
    for resource in ("ephemeral-storage",):
        if (size := requests.pop(resource, None) or limits.pop(resource, None)) is not None:
            limits.pop(resource, None)
            text = (
                "ephemeral_disk of a profile, in MiB. Modal's default is large: keep it if the task does not fill it."
            )
            pod.found(size, Kind.DROP, f"{resource} {size.value}", text)
    for resource, value in {**requests, **limits}.items():
        pod.found(value, Kind.DECIDE, f"{resource} {value.value}", "has no counterpart on Modal.")


def _node(pod: Pod, spec: Mapping[str, Static]) -> None:
    """Set the GPU by its number and the labels of nodes, and name the other labels."""
    labels = dict(_labels(spec))
    count = pod.gpus
    model, at = "", None
    for label, value in labels.items():
        known = label in quantities.GPU_LABELS or label in quantities.MACHINE_LABELS
        gpu = quantities.gpu_of_node(label, str(value.value)) if known else ""
        if gpu and not model:
            model, at = gpu, value
        elif not gpu:
            _other_label(pod, label, value, needs_gpu=count is not None)
    if count is None:
        if model and at is not None:
            pod.found(
                at, Kind.DECIDE, f"a node with {model}", f"gpu={model!r} if the task uses the GPU; it asks for none."
            )
        return
    static, resource = count
    number = quantities.quantity(static.value)
    what = f"{resource} {static.value}" + (f" on {at.value!r}" if at is not None else "")
    if number is None or number < 1 or number != int(number):
        pod.found(static, Kind.DECIDE, what, "is no number of GPUs. Modal has no parts of a GPU.")
    elif not model:
        known_gpus = ", ".join(values.KNOWN_GPUS[:6])
        text = f"choose a GPU: no label of a node that names one was found. Write gpu=…, e.g. one of {known_gpus}."
        pod.found(static, Kind.DECIDE, what, text)
    else:
        pod.option(static, "gpu", model if number == 1 else f"{model}:{int(number)}", what)


def _other_label(pod: Pod, label: str, value: Static, *, needs_gpu: bool) -> None:
    what = f"node label {label}={value.value}"
    if label.endswith(("/region", "/zone")):
        pod.found(value, Kind.DECIDE, what, "use region=… with a name of Modal's, if the place matters.")
    elif label in quantities.GPU_LABELS and needs_gpu:
        pod.found(
            value, Kind.DECIDE, what, "is a GPU that modalflow does not know on Modal. Choose another one: gpu=…."
        )
    else:
        pod.found(value, Kind.DROP, what, "has no counterpart: Modal chooses the machine.")


def _labels(spec: Mapping[str, Static]) -> Iterator[tuple[str, Static]]:
    """Yield the labels by which a pod chooses its node: of its selector, and required by its affinity."""
    selector = spec.get("node_selector")
    if selector is not None and selector.model is not None:
        yield from selector.model.fields.items()
    affinity = fields_of(fields_of(spec.get("affinity")).get("node_affinity"))
    required = fields_of(affinity.get("required_during_scheduling_ignored_during_execution"))
    for term in _items(required, "node_selector_terms"):
        for expression in _items(fields_of(term), "match_expressions"):
            fields = fields_of(expression)
            chosen = _items(fields, "values")
            if _text(fields.get("operator")) == "In" and len(chosen) == 1:
                yield _text(fields.get("key")), chosen[0]


def _variables(pod: Pod, fields: Mapping[str, Static]) -> None:
    env: dict[str, str] = {}
    secrets: list[str] = []
    for variable in _items(fields, "env"):
        own = fields_of(variable)
        name, value = _text(own.get("name")), own.get("value")
        origin = next(iter(fields_of(own.get("value_from")).items()), None)
        if origin is not None:
            secrets += _from(pod, variable, name, *origin)
        elif value is not None and isinstance(value.value, Unknown):
            continue
        elif _SECRET.search(name):
            pod.found(
                variable,
                Kind.DECIDE,
                f"variable {name}",
                "seems to be secret: put it into a Modal Secret, secrets=[…].",
            )
        elif _is_variable(pod, variable, name, _text(value)):
            env[name] = _text(value)
            pod.found(variable, Kind.CHANGE, f"variable {name}", "env=")
    for source in _items(fields, "env_from"):
        for kind, reference in fields_of(source).items():
            if kind in ("secret_ref", "config_map_ref"):
                secrets += _from(pod, source, "", kind, reference)
    if env:
        pod.options["env"] = env
    if secrets:
        pod.options["secrets"] = list(dict.fromkeys(secrets))


def _is_variable(pod: Pod, at: Static, name: str, value: str) -> bool:
    try:
        values.variables("env", {name: value})
    except ConfigError as error:
        pod.found(at, Kind.DECIDE, f"variable {name}", str(error))
        return False
    return True


def _from(pod: Pod, at: Static, variable: str, kind: str, reference: Static) -> list[str]:
    """Find what becomes of variables from elsewhere; return the Modal Secret to use."""
    name = _text(fields_of(reference).get("name"))
    what = f"variable {variable}" if variable else "variables"
    if kind.startswith("secret") and name:
        pod.found(
            at, Kind.DECIDE, f"{what} of the Kubernetes secret {name}", f"secrets=[{name!r}]: create this Modal Secret."
        )
        return [name]
    if kind.startswith("config_map"):
        pod.found(
            at, Kind.DECIDE, f"{what} of the config map {name}", "put the values into env= here, or of the profile."
        )
    else:
        pod.found(
            at, Kind.DECIDE, f"{what} of a {kind}", "has no counterpart. Airflow's context has the task's own names."
        )
    return []


def _mount(pod: Pod, mount: Static, volumes: Mapping[str, Static]) -> None:
    fields = fields_of(mount)
    path, name = _text(fields.get("mount_path")), _text(fields.get("name"))
    volume = fields_of(volumes.get(name))
    kind = next((each for each in volume if each in pod_fields.VOLUMES), "")
    what = f"mount {path} of {kind or 'volume'} {name!r}"
    if not kind:
        pod.found(mount, Kind.DECIDE, what, "has no counterpart that modalflow knows. Use a Modal Volume: volumes={…}.")
        return
    asks, text = pod_fields.VOLUMES[kind]
    if kind == "persistent_volume_claim" and path:
        claim = _text(fields_of(volume[kind]).get("claim_name")) or name
        pod.options.setdefault("volumes", {})[path] = claim
        text = f"volumes={{{path!r}: {claim!r}}}: {text}"
    pod.found(mount, asks, what, text)


def _by_table(pod: Pod, fields: Mapping[str, Static], table: Mapping[str, pod_fields.Rule], where: str) -> None:
    for name, value in fields.items():
        if isinstance(value.value, Unknown):
            continue
        kind, text = table.get(name, (Kind.DECIDE, "is unknown to modalflow migrate."))
        if text:
            pod.found(value, kind, f"{where}.{name}", text)


def _items(fields: Mapping[str, Static], name: str) -> tuple[Static, ...]:
    found = fields.get(name)
    return found.items if found is not None else ()


def _plain(static: Static | None) -> dict[str, Static]:
    model: Model | None = static.model if static is not None else None
    return (
        {name: value for name, value in model.fields.items() if not isinstance(value.value, Unknown)} if model else {}
    )


def _text(static: Static | None) -> str:
    return static.value if static is not None and isinstance(static.value, str) else ""


def _cores(value: object) -> float | None:
    found = quantities.cores(value)
    return int(found) if found is not None and found == int(found) else found


def _memory(value: object) -> int | str | None:
    found = quantities.mebibytes(value)
    return None if found is None else quantities.written_memory(max(found, values.LEAST_MEMORY))


def _snake(name: str) -> str:
    """Return ``volumeMounts`` as ``volume_mounts``."""
    return re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()
