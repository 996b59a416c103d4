"""Messages between executor and worker: versioned, plain data.

The two may run different versions of modalflow, so nothing here is pickled as a class. A ``Submission`` travels as a
dict of JSON types, an ``Entry`` as a JSON text. A reader never trusts the writer: any unexpected content is a
MalformedMessageError.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar, cast

from modalflow.errors import MalformedMessageError
from modalflow.names import TaskTry
from modalflow.support.described import describe
from modalflow.support.text import ID, LINE, clean, from_json, one_line

#: Raised by one whenever an older peer could misread a message. Executor and worker must agree on it.
PROTOCOL = 1


class Kind(StrEnum):
    """The content of a submission."""

    WORKLOAD = "workload"
    """A workload of Airflow's (task, callback, connection test), run under Airflow's supervisor."""
    COMMAND = "command"
    """A raw command: its exit code is its outcome."""
    PROBE = "probe"
    """A request of `modalflow doctor` for a container's view. It is not claimed, and leaves nothing behind."""


class State(StrEnum):
    """The state of a work id in the ledger."""

    RUNNING = "running"
    """Claimed by a container."""
    SUCCESS = "success"
    """The supervisor ended normally (for any result of the task), or the command ended with 0."""
    FAILED = "failed"
    """The supervisor could not run or report the outcome, or the command ended with another code."""


@dataclass(frozen=True)
class Submission:
    """One input of a worker Function."""

    work_id: str
    kind: Kind
    log_path: str
    """The log's path in the logs Volume. It is a folder: each function call of this log adds its own file, so two
    containers never write the same file."""
    partition: str
    """The events partition of the submitting executor."""
    label: str
    """The label for logs and errors."""
    workload: str | None = field(default=None, repr=False)
    """The workload as Airflow serialises it. It holds a token."""
    command: tuple[str, ...] | str | None = None
    """Arguments, or one string for the shell."""
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables of the workload's process, above the container's."""
    own_env: tuple[str, ...] = ()
    """Names of the task's own variables. They override its profile's."""
    profile: str = "default"
    resources: Mapping[str, Any] = field(default_factory=dict)
    """The granted resources, as far as the executor knows, as JSON types: the profile's, overridden by the task's. cpu
    (cores, or a list of reservation and limit), memory (MiB, or a list of two), gpu ("H100:2"), timeout (seconds),
    region and cloud (a text, or a list), concurrency, nonpreemptible. Unset values are missing. In a container, use
    ``Container.granted``."""
    submitted_at: float = 0.0
    """When the executor took it from Airflow, in seconds since the epoch by its own clock; 0 if unsaid."""
    protocol: int = PROTOCOL
    executor_version: str = ""
    task: TaskTry | None = None
    """The try of a task instance for a command, if it has one. A workload names its own: see ``task_try``."""

    note: str = ""
    """A warning for the log. The worker writes it below its first line, so the executor needs no upload."""
    sized: Mapping[str, int] = field(default_factory=dict)
    """The resources that follow from the last runs of the task, cpu or memory → how many runs."""
    burst_began_at: float = 0.0
    """The submission of the first task of its burst, in seconds since the epoch."""
    start_after: float = 0.0
    """Seconds behind the first task: the tasks of a burst ask the Execution API one after the other."""
    home: str = ""
    """The id of the Airflow home that a workload runs with (``airflow_home.snapshot``); empty for none."""

    relay: str = ""
    """The relay key (relay.encryption.PublicKey) with which requests to Airflow's Execution API are encrypted. Empty:
    they go to the URL among the variables."""
    relay_transport: str = "queues"
    """How they travel to relays: as the option of this name. A worker treats an unknown value as ``queues``."""
    executor_reports_stop: bool = False
    """Whether the executor reports to Airflow that a task failed because its container was stopped. If not, the task's
    supervisor does, in the container."""
    team: str = ""
    """The team of the executor, for the usage record."""
    spawned_at: float = 0.0
    """When the executor sent it to Modal, in seconds since the epoch by its own clock; 0 if unsaid."""
    asked: Mapping[str, Any] = field(default_factory=dict)
    """The resources that the task itself set, by the names of ``resources``."""

    @property
    def task_try(self) -> TaskTry | None:
        """Return the try of a task instance; None for other work, and for a workload outside JSON."""
        if self.workload is None:
            return self.task
        try:
            ti = json.loads(self.workload)["ti"]
            index = ti.get("map_index")
            dag_id, task_id, run_id = (str(ti[name]) for name in ("dag_id", "task_id", "run_id"))
            return TaskTry(dag_id, task_id, run_id, -1 if index is None else int(index), int(ti["try_number"]))
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def to_wire(self) -> dict[str, Any]:
        """Return JSON types only."""
        # Not dataclasses.asdict: its deep copies would be most of the scheduler's cost for a submission.
        wire = {name: getattr(self, name) for name in _SUBMISSION_FIELDS}
        wire["kind"] = self.kind.value
        wire["env"], wire["own_env"] = dict(self.env), list(self.own_env)
        wire["resources"], wire["sized"], wire["asked"] = dict(self.resources), dict(self.sized), dict(self.asked)
        wire["task"] = None if self.task is None else list(self.task)
        if isinstance(self.command, tuple):
            wire["command"] = list(self.command)
        return wire

    @classmethod
    def from_wire(cls, wire: object) -> Submission:
        """Read the result of ``to_wire``. Raises MalformedMessageError for anything else."""
        values = known_fields(cls, wire)
        command = values.get("command")
        if isinstance(command, list):
            values["command"] = tuple(str(part) for part in command)
        try:
            values["kind"] = Kind(values["kind"])
            values["own_env"] = tuple(values.get("own_env") or ())
            values["task"] = TaskTry.read(values.get("task"))
            values["sized"] = _counts(values.get("sized") or {})
            values["asked"] = dict(values.get("asked") or {})
            values |= _times(values, "burst_began_at", "start_after", "submitted_at", "spawned_at")
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"A submission is malformed: {describe(error)}") from error


def _times(values: Mapping[str, Any], *names: str) -> dict[str, float]:
    """Return the times among the values. TypeError or ValueError names a value of another kind."""
    try:
        return {name: _plain_float(values.get(name, 0.0)) for name in names}
    except (TypeError, ValueError) as error:
        raise type(error)(f"{', '.join(names)} are not all seconds") from None


_SUBMISSION_FIELDS = tuple(f.name for f in dataclasses.fields(Submission))


@dataclass(frozen=True)
class Entry:
    """The ledger's entry for a work id, repeated in an event."""

    work_id: str
    state: State
    function_call_id: str
    container_id: str
    owner: str
    """A value only the claiming run knows, to recognise its own claim after a repeated RPC."""
    label: str = ""
    partition: str = ""
    started_at: float = 0.0
    """Seconds since the epoch, by the container's clock."""
    finished_at: float | None = None
    return_code: int | None = None
    final_state: str | None = None
    """The supervisor's report to Airflow (a TaskInstanceState value), if any."""
    reason: str | None = None
    """Why it ended as it did, for humans."""
    cause: str = ""
    """The cause of an abnormal end (a reasons.Cause value), if any."""
    worker_version: str = ""
    protocol: int = PROTOCOL
    task: TaskTry | None = None
    """The try of a task instance, if it is one and its worker is 0.5 or newer."""
    profile: str = ""
    """The profile of its container; empty if the worker does not report it."""
    memory_mib: float = 0.0
    """The memory that its container may use, as far as it is granted; 0 if the worker does not report it."""
    timeout: float = 0.0
    """The seconds that its function call may take; 0 if the worker does not report it."""
    submitted_at: float = 0.0
    """As in the submission, by the executor's clock; 0 if unknown."""
    spawned_at: float = 0.0
    """As in the submission, by the executor's clock; 0 if unknown."""
    container_started_at: float = 0.0
    """When the container started, in seconds since the epoch by its own clock; 0 if unknown."""

    def to_json(self) -> str:
        wire = dataclasses.asdict(self)
        if self.reason is not None:
            wire["reason"] = clean(self.reason)
        return json.dumps(wire, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> Entry:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else.

        For any writer, its texts are safe for storage, logs and terminals, and its numbers are finite.
        """
        if not isinstance(text, str):
            raise MalformedMessageError(f"A ledger entry is {type(text).__name__}; expected a JSON text")
        try:
            wire = from_json(text)
        except ValueError as error:
            raise MalformedMessageError(f"A ledger entry is not JSON: {text[:80]!r}") from error
        try:
            values = plain_fields(cls, wire)
            if values.get("reason") is not None:
                values["reason"] = clean(wire["reason"])
            values["state"] = State(values["state"])
            values["task"] = TaskTry.read(values.get("task"))
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise MalformedMessageError(f"A ledger entry is malformed: {one_line(describe(error), LINE)}") from error


@dataclass(frozen=True)
class Deployment:
    """The deployed worker, as recorded by `modalflow deploy` on the logs Volume."""

    version: str
    protocol: int
    airflow_version: str
    python_version: str
    profiles: tuple[str, ...]
    bundles: Mapping[str, str]
    """Local DAG bundles of the Airflow host: name → where they are in a container."""
    deployed_at: float
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Profile → its definition, for comparisons. It has only digests of variables."""
    granted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Profile → the resources of its tasks, as in ``Submission.resources``."""
    volumes: Mapping[str, str] = field(default_factory=dict)
    """modalflow's own mounts in every container: path → name of the Volume."""
    packages: Mapping[str, str] = field(default_factory=dict)
    """Packages installed into the image: name → version."""
    requirements: tuple[str, ...] = ()
    """The lines of the requirements file, if there was one."""
    env: Mapping[str, str] = field(default_factory=dict)
    """Names of the deployment's own variables, each with a digest of its value."""
    dags_source: str = "local"
    """The source of the bundles: a worker.dag_source.SourceKind."""
    home_key: str = ""
    """The public key for secret settings in Airflow homes (``airflow_home.sealing``); empty if there is none."""

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Deployment:
        """Read the result of ``to_json``. Raises MalformedMessageError for anything else."""
        try:
            values = plain_fields(cls, from_json(text))
            values["profiles"] = _texts(values["profiles"])
            values["requirements"] = _texts(values.get("requirements") or ())
            deployment = cls(**values)
            deployment._check_types()
            return deployment
        except (KeyError, TypeError, ValueError) as error:
            shown = one_line(describe(error))
            raise MalformedMessageError(
                f"The record of the deployed worker is malformed: {shown}. Write it again: `modalflow deploy`."
            ) from error

    def _check_types(self) -> None:
        mappings = (self.bundles, self.facts, self.granted, self.volumes, self.packages, self.env)
        nested = (*self.facts.values(), *self.granted.values()) if all(isinstance(m, dict) for m in mappings) else ()
        if not all(isinstance(each, dict) for each in (*mappings, *nested)):
            raise TypeError("expected an object")
        of_texts = (self.bundles, self.volumes, self.packages, self.env)
        if not all(isinstance(value, str) for mapping in of_texts for value in mapping.values()):
            raise TypeError("expected a text")


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise TypeError("expected a list")
    return tuple(_plain_text(each) for each in value)


_T = TypeVar("_T")


def known_fields(cls: type[_T], wire: object) -> dict[str, Any]:
    """Return the fields known to this version, so a newer peer may add some."""
    if not isinstance(wire, dict):
        raise MalformedMessageError(f"A {cls.__name__.lower()} is {type(wire).__name__}; expected a dict")
    names = _names(cast(Hashable, cls))
    return {key: value for key, value in wire.items() if key in names}


@cache
def _names(cls: Any) -> frozenset[str]:
    return frozenset(f.name for f in dataclasses.fields(cls))


#: No larger number is a time in seconds since the epoch (the last second of the year 9999, the end of dates), or
#: another reported number. Arithmetic with it could fail.
_LARGEST = 253_402_300_799


def plain_fields(cls: type[_T], wire: object) -> dict[str, Any]:
    """Return known fields as ``known_fields`` does, with checked texts and numbers. TypeError or ValueError names a
    wrong one.

    Texts become single lines, safe for storage, logs and terminals.
    """
    values = known_fields(cls, wire)
    for name, read in _readers(cast(Hashable, cls)):
        if name in values:
            try:
                values[name] = read(values[name])
            except (TypeError, ValueError) as error:
                raise type(error)(f"{name} is {one_line(repr(values[name]), ID)}") from None
    return values


@cache
def _readers(cls: Any) -> Sequence[tuple[str, Callable[[object], Any]]]:
    """Return the fields of a class with texts or numbers, each with its reader."""
    return [(f.name, _PLAIN[str(f.type)]) for f in dataclasses.fields(cls) if str(f.type) in _PLAIN]


def _plain_text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return one_line(value)


def _plain_int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError
    if not -_LARGEST <= value <= _LARGEST:
        raise ValueError
    return value


def _plain_float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise TypeError
    if not -_LARGEST <= value <= _LARGEST:
        # NaN is among these.
        raise ValueError
    return value


def _counts(value: object) -> dict[str, int]:
    if not isinstance(value, dict):
        raise TypeError
    return {one_line(name, ID): _plain_int(number) for name, number in value.items()}


def _listed(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError
    return value


def _or_none(read: Callable[[object], Any]) -> Callable[[object], Any]:
    return lambda value: None if value is None else read(value)


_PLAIN: Mapping[str, Callable[[object], Any]] = {
    "str": _plain_text,
    "str | None": _or_none(_plain_text),
    "int": _plain_int,
    "int | None": _or_none(_plain_int),
    "float": _plain_float,
    "float | None": _or_none(_plain_float),
    "Mapping[str, int]": _counts,
    "Mapping[str, int] | None": _or_none(_counts),
    "tuple[str, ...]": lambda value: tuple(_plain_text(each) for each in _listed(value)),
}
