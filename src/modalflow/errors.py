"""All deliberate exceptions of modalflow, as one tree. Each message names the fix."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class ModalflowError(Exception):
    """The root of the tree. Catch it to catch all deliberate exceptions of modalflow."""


#: Characters of a wrong value in an error. A task can pass megabytes of nonsense.
_SHOWN = 300


class Described(str):
    """A description of a value too secret or too long for an error."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


class ConfigError(ModalflowError):
    """A setting is missing, malformed or contradicts another one. Nothing was started."""

    def __init__(self, where: str, value: object, expected: str) -> None:
        self.where, self.expected = where, expected
        super().__init__(f"{where} is {shown(value)}; expected {expected}")


def shown(value: object) -> str:
    """Return a value for an error, with a limited length."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001  Whatever an object's own repr raises, the error is about the setting.
        text = f"of type {type(value).__name__}"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


class CredentialsError(ModalflowError):
    """Modal refused the credentials, or there are none."""


class AirflowSettingError(ModalflowError):
    """Airflow on this machine cannot use one of its own settings."""


class NotDeployedError(ModalflowError):
    """The worker app, a profile of it, or the Function that a DAG calls is not deployed in this Modal environment."""


class IncompatibleWorkerError(ModalflowError):
    """The deployed worker and this executor do not speak the same version of their protocol."""


class ControlPlaneUnreachableError(ModalflowError):
    """Modal's API did not answer in time."""


class WorkloadRejectedError(ModalflowError):
    """A workload has an impossible request, such as an unknown key in its executor_config."""


class MalformedMessageError(ModalflowError):
    """A message between executor and worker is not of the expected form."""


class UntrustedDataError(ModalflowError):
    """Data written by a container asked for more than plain data when it was read."""


class FunctionCallError(ModalflowError):
    """A call of a Modal Function by a DAG failed, or its result cannot be an XCom."""


class DeployError(ModalflowError):
    """The worker app could not be deployed."""


class BundleError(ModalflowError):
    """A DAG bundle cannot be read, shipped, or brought to where a task runs."""


class HomeError(ModalflowError):
    """The configuration of the Airflow host cannot be published, or brought to where a task runs."""


def a_known_name(name: str, known: Iterable[str]) -> str:
    """Return the expectation for an unknown name, with the nearest known one."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"a known name ({hint}known: {', '.join(names)})"
