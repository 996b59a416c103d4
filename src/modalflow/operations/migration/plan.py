"""What changes in a folder of DAG files if their tasks move to the ModalExecutor.

Reads the files' source. Never runs, imports or writes one.
"""

from __future__ import annotations

import ast
import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modalflow.bundles.scan import IGNORED_FOLDERS, is_ignored
from modalflow.config import values
from modalflow.config.task_options import KEYS, advice_on, check_options
from modalflow.errors import ConfigError, ModalflowError
from modalflow.operations.migration.findings import Finding, Kind
from modalflow.operations.migration.legacy import read_legacy
from modalflow.operations.migration.pods import Pod, profile_name, read_pod
from modalflow.operations.migration.reader import Reader
from modalflow.operations.migration.static_values import Module, Place, Sources, Static, Unknown
from modalflow.operations.migration.uses import Use, uses

#: Names of executors from which tasks move, as `executor=` has them.
_OTHERS = (
    "KubernetesExecutor",
    "CeleryExecutor",
    "CeleryKubernetesExecutor",
    "LocalKubernetesExecutor",
    "LocalExecutor",
)

_OTHER_KEYS = "has no effect on Modal. It can stay for tasks that also run there."


@dataclass(frozen=True)
class Part:
    """A place in a file with its old and its new text, and the findings below it."""

    task: str
    place: Place
    old: str
    new: str
    """Empty if nothing replaces the old text, and equal to it if it stays."""
    findings: tuple[Finding, ...]
    image: str = ""


@dataclass
class Plan:
    """The parts of all files, and the files that cannot be read."""

    files: int = 0
    parts: list[Part] = field(default_factory=list)
    unreadable: list[Finding] = field(default_factory=list)

    @property
    def findings(self) -> list[Finding]:
        return [*self.unreadable, *(finding for part in self.parts for finding in part.findings)]

    @property
    def needs_a_person(self) -> bool:
        return any(finding.kind is Kind.DECIDE for finding in self.findings)

    @property
    def images(self) -> dict[str, str]:
        """Image → the name of its profile."""
        return {part.image: profile_name(part.image) for part in self.parts if part.image}


def read_folder(root: Path) -> Plan:
    """Return the plan for the Python files below a folder, or for one file; raise ModalflowError if there are none."""
    if not root.exists():
        raise ModalflowError(f"{root} does not exist; expected a folder with DAG files")
    errors: list[OSError] = []
    folder, files = (root.parent, [root]) if root.is_file() else (root, list(_files(root, errors)))
    if not files and not errors:
        raise ModalflowError(f"{root} has no Python files; expected a folder with DAG files")
    sources = Sources(folder)
    reader = Reader(sources)
    plan = Plan(len(files))
    for error in errors:
        place = Place(Path(error.filename).relative_to(folder).as_posix(), 1)
        plan.unreadable.append(Finding(place, Kind.DECIDE, "folder", f"cannot be read: {error.strerror}"))
    for path in files:
        try:
            if path.suffix == ".zip":
                raise ValueError("it is an archive. Unpack it, and name its folder")
            module = sources.module(path)
        except (SyntaxError, ValueError, OSError, RecursionError) as error:
            place = Place(path.relative_to(folder).as_posix(), getattr(error, "lineno", None) or 1)
            plan.unreadable.append(Finding(place, Kind.DECIDE, "file", f"cannot be read: {error}"))
            continue
        parts = (_part(reader, module, use) for use in uses(module))
        plan.parts += [part for part in parts if part.findings or part.new != part.old]
    return plan


def _files(root: Path, errors: list[OSError]) -> Iterator[Path]:
    """Yield the Python files and archives below a folder. Follows links to folders, as Airflow does, each once."""
    seen = {root.resolve()}
    for folder, names, files in os.walk(root, followlinks=True, onerror=errors.append):
        inner = sorted(name for name in names if name not in IGNORED_FOLDERS and not is_ignored(name))
        names.clear()
        for name in inner:
            if (resolved := Path(folder, name).resolve()) not in seen:
                seen.add(resolved)
                names.append(name)
        yield from (
            Path(folder, name)
            for name in sorted(files)
            if not is_ignored(name) and (name.endswith(".py") or _is_packed(Path(folder, name)))
        )


def _is_packed(path: Path) -> bool:
    """Return whether a file is an archive with Python files, which Airflow would search for DAGs."""
    # To read a named pipe waits for a writer.
    if path.suffix != ".zip" or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith(".py") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return False


def _part(reader: Reader, module: Module, use: Use) -> Part:
    match use.keyword:
        case "executor_config" if use.value is not None:
            return _executor_config(reader, module, use, use.value)
        case "executor" if use.value is not None:
            return _executor(reader.read(module, use.value), use)
        case "queue" if use.value is not None:
            return _queue(reader.read(module, use.value), use)
        case "pod operator":
            return _pod_operator(reader, module, use)
    text = "has no effect on Modal: write what it does into profiles and modal_config."
    return Part("", use.place, use.keyword, "", (Finding(use.place, Kind.DECIDE, use.keyword, text),))


def _executor_config(reader: Reader, module: Module, use: Use, node: ast.expr) -> Part:
    static = reader.read(module, node)
    old = f"executor_config={_short(node)}"
    if isinstance(static.value, Unknown):
        finding = Finding(static.place, Kind.DECIDE, old, static.value.why)
        return Part(use.task, use.place, old, old, (finding,))
    fields = dict(static.model.fields) if static.model is not None else {}
    if not fields:
        return Part(use.task, use.place, old, old, ())
    if set(fields) == {"modal"}:
        own = _modal(fields["modal"], is_alone=True)
        return Part(use.task, use.place, old, old, tuple(own.findings))
    pod = Pod()
    # The options of the file itself override those that follow from a pod.
    for key, value in sorted(fields.items(), key=lambda item: item[0] == "modal"):
        _merge(pod, _of_key(key, value))
    _check(pod, use.place)
    return Part(use.task, use.place, old, _written(pod.options), tuple(pod.findings), pod.image)


def _of_key(key: str, value: Static) -> Pod:
    """Return what becomes of one key of an ``executor_config``."""
    if key == "pod_override" and value.value is not None:
        return read_pod(value)
    if key == "KubernetesExecutor":
        return read_legacy(value)
    pod = Pod()
    if key == "pod_template_file":
        text = "write what the template sets into modal_config or a profile; modalflow does not read it."
        pod.found(value, Kind.DECIDE, f"pod_template_file {value.value!r}", text)
    elif key == "modal":
        return _modal(value, is_alone=False)
    elif key in KEYS and value.value is not None:
        text = "has no effect beside 'modal'. If it is an option for Modal, write it into modal_config."
        pod.found(value, Kind.DECIDE, f"{key!r}", text)
    elif (advice := advice_on(key)) and value.value is not None:
        pod.found(value, Kind.DECIDE, repr(key), f"has no effect on Modal: {advice}.")
    elif value.value is not None:
        pod.found(value, Kind.DROP, repr(key), _OTHER_KEYS)
    return pod


def _modal(static: Static, *, is_alone: bool) -> Pod:
    """Return the options below the key ``modal``, and a finding for each that the executor would refuse."""
    pod = Pod()
    if static.model is None:
        if isinstance(static.value, Unknown):
            if not is_alone:
                pod.found(static, Kind.DECIDE, f"'modal': {static.value.source}", f"keep it: it {static.value.why}")
        elif static.value is not None:
            _refused(pod, static, static.plain(), "'modal'")
        return pod
    for name, value in static.model.fields.items():
        unknown = next((each.value for _, each in value.unknowns() if isinstance(each.value, Unknown)), None)
        if unknown is not None:
            if not is_alone:
                pod.found(value, Kind.DECIDE, f"{name} {unknown.source}", f"keep this option: it {unknown.why}")
        elif not _refused(pod, value, {name: value.plain()}, name):
            pod.options[name] = value.plain()
    if problem := values.unknown_gpu(pod.options.get("gpu")):
        pod.found(static.model.fields["gpu"], Kind.DECIDE, "gpu", problem)
    elif not pod.findings:
        _refused(pod, static, pod.options, "'modal'")
    return pod


def _refused(pod: Pod, static: Static, options: object, what: str) -> bool:
    try:
        check_options(options)
    except ConfigError as error:
        pod.found(static, Kind.DECIDE, what, f"the executor would refuse it: {error}")
        return True
    return False


def _merge(pod: Pod, other: Pod) -> None:
    pod.options |= other.options
    pod.findings += other.findings
    pod.image = pod.image or other.image


def _check(pod: Pod, place: Place) -> None:
    """Leave out what modal_config would refuse, and say so."""
    for name in [name for name in pod.options if name in KEYS]:
        try:
            check_options({name: pod.options[name]}, "modal_config")
        except ConfigError as error:
            del pod.options[name]
            pod.findings.append(Finding(place, Kind.DECIDE, name, str(error)))


def _written(options: dict[str, Any]) -> str:
    """Return the options as a line of a DAG file, in the order of the documentation."""
    if not options:
        return ""
    listed = ", ".join(f"{name}={options[name]!r}" for name in KEYS if name in options)
    return f"executor_config=modalflow.modal_config({listed})"


def _executor(static: Static, use: Use) -> Part:
    old = f"executor={_value(static)}"
    name = str(static.value).rpartition(".")[2]
    if isinstance(static.value, Unknown):
        return Part(use.task, use.place, old, old, (Finding(static.place, Kind.DECIDE, old, static.value.why),))
    if name in _OTHERS:
        text = "or keep it, if [core] executor still lists this executor."
        return Part(use.task, use.place, old, 'executor="ModalExecutor"', (Finding(use.place, Kind.CHANGE, old, text),))
    return Part(use.task, use.place, old, old, ())


def _queue(static: Static, use: Use) -> Part:
    old = f"queue={_value(static)}"
    if isinstance(static.value, Unknown):
        return Part(use.task, use.place, old, old, (Finding(static.place, Kind.DECIDE, old, static.value.why),))
    if static.value == "kubernetes":
        text = "chose Kubernetes in a CeleryKubernetesExecutor or LocalKubernetesExecutor. Name the executor instead."
        return Part(use.task, use.place, old, 'executor="ModalExecutor"', (Finding(use.place, Kind.CHANGE, old, text),))
    text = f"stays: it selects the profile {static.value!r}. Deploy one, or map it in [modal_executor] queues."
    return Part(use.task, use.place, old, old, (Finding(use.place, Kind.KEEP, old, text),))


def _pod_operator(reader: Reader, module: Module, use: Use) -> Part:
    in_cluster = reader.read(module, use.value).value if use.value is not None else None
    text = (
        "stays: it starts its own pod. Its task on Modal needs a connection to the cluster's API, kubernetes_conn_id."
    )
    kind = Kind.KEEP
    if in_cluster is True:
        kind, text = (
            Kind.DECIDE,
            "in_cluster=True works in the cluster only: use kubernetes_conn_id, or keep its executor.",
        )
    return Part(
        use.task, use.place, "KubernetesPodOperator", "KubernetesPodOperator", (Finding(use.place, kind, "pod", text),)
    )


def _value(static: Static) -> str:
    return static.value.source if isinstance(static.value, Unknown) else repr(static.value)


def _short(node: ast.expr) -> str:
    """Return an expression with the names of a dict's keys only."""
    if isinstance(node, ast.Dict):
        return "{" + ", ".join(f"{ast.unparse(key)}: …" if key is not None else "**…" for key in node.keys) + "}"
    text = ast.unparse(node)
    return text if len(text) <= 60 else f"{text[:59]}…"
