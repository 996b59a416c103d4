"""The tokens of tasks for Airflow's API: how this machine signs them, and whether an API server accepts one.

An API server accepts what a scheduler with the same settings signs. So two machines can compare these settings, without
showing a secret. Never logs or stores a token, and returns one only to the caller that asked for it.
"""

from __future__ import annotations

import datetime
import hmac
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.task_sdk.api_client import http_library, request_once
from modalflow.airflow_compat.versions import AIRFLOW_V_3_2_PLUS, AIRFLOW_VERSION
from modalflow.errors import ModalflowError
from modalflow.support.described import describe

#: The name of the random text that fingerprints are made with. It is not a setting.
SALT = "salt"
SECRET = "[api_auth] jwt_secret"  # noqa: S105  A setting's name.
PRIVATE_KEY = "[api_auth] jwt_private_key_path"
#: The settings that the API server and the scheduler must share.
SIGNING_SETTINGS = (
    SECRET,
    PRIVATE_KEY,
    "[api_auth] jwt_algorithm",
    "[api_auth] jwt_issuer",
    "[execution_api] jwt_audience",
)

#: Seconds for one request: an API server that has just started builds its routes for the first one.
REQUEST_TIMEOUT = 30.0
_NOT_FOUND, _UNPROCESSABLE = 404, 422
#: The sender of a trial in the API server's log.
_SENDER = "modalflow-doctor"


@dataclass(frozen=True)
class Answer:
    """The answer of an API server to a trial."""

    status: int
    text: str
    date: str
    """Its `Date` header."""
    accepted: bool
    """Whether it searched for the task instance, which it only does with a valid token."""


def trial_token(ti_id: str, valid_for: float) -> str:
    """Return a token as the scheduler would sign it for a task instance, valid for some seconds.

    Raises ModalflowError if this machine cannot sign one.
    """
    signer = _signer()
    signer.valid_for = valid_for
    # From 3.2 on a workload's token is only valid for the start, and has a scope that says so.
    scope = {"scope": "workload"} if AIRFLOW_V_3_2_PLUS else {}
    return str(signer.generate({"sub": ti_id, **scope}))


def try_token(url: str, token: str, ti_id: str) -> Answer:
    """Ask the Execution API at ``url`` to start a missing task instance.

    It checks the token first, then answers "not found", and changes nothing. Raises the errors of `http_library`.
    """
    from airflow.sdk.api.client import Client

    now = datetime.datetime.now(datetime.UTC).isoformat()
    body = {"state": "running", "hostname": _SENDER, "unixname": _SENDER, "pid": os.getpid(), "start_date": now}
    client: Any = Client(base_url=url, token=token)
    with client:
        try:
            path = f"task-instances/{ti_id}/run"
            response = request_once(client, "PATCH", path, json=body, timeout=REQUEST_TIMEOUT)
        except http_library().HTTPStatusError as error:
            response = error.response
    try:
        answer: Any = response.json()
    except ValueError:
        answer = None
    detail = answer.get("detail") if isinstance(answer, dict) else None
    found_none = isinstance(detail, dict) and detail.get("reason") == "not_found"
    accepted = (response.status_code == _NOT_FOUND and found_none) or response.status_code == _UNPROCESSABLE
    text = detail if isinstance(detail, str) else response.text
    return Answer(response.status_code, text[:500], str(response.headers.get("date") or ""), accepted)


def settings_to_compare(salt: str = "") -> dict[str, str]:
    """Return the settings that another machine can compare with its own: setting → value, or a secret's fingerprint.

    A fingerprint reveals no more of a secret than the signature of any token. Signing settings are left out if this
    machine cannot sign.
    """
    salt = salt or secrets.token_hex(8)
    compared = {SALT: salt, "the version of Airflow": AIRFLOW_VERSION}
    try:
        signer = _signer()
    except ModalflowError:
        return compared
    key = signer.signing_arg
    if isinstance(key, str):
        compared[SECRET] = _fingerprint(key, salt)
    else:
        compared[PRIVATE_KEY] = _fingerprint(_public_half(key), salt)
    compared["[api_auth] jwt_algorithm"] = str(signer.algorithm)
    compared["[api_auth] jwt_issuer"] = str(signer.issuer or "")
    compared["[execution_api] jwt_audience"] = str(signer.audience or "")
    return compared


def differences(theirs: Mapping[str, Any], more: Mapping[str, str] | None = None) -> list[str]:
    """Return the names of another machine's different settings.

    ``theirs`` is the result of ``settings_to_compare`` there, and ``more`` holds further settings of this machine. A
    machine of another version may have fewer settings.
    """
    salt = theirs.get(SALT)
    if not isinstance(salt, str) or not salt:
        return []
    ours = settings_to_compare(salt) | dict(more or {})
    key = {SECRET, PRIVATE_KEY}
    signs = bool(key & set(theirs)) and bool(key & set(ours))
    shared = [name for name in ours if name in theirs or (signs and name in key)]
    return [name for name in shared if theirs.get(name) != ours[name]]


def origin_of_the_key() -> str:
    """Return where this machine's signing key is set, e.g. ``[api_auth] jwt_secret of /opt/airflow/airflow.cfg``."""
    conf = own_conf()
    for option in ("jwt_private_key_path", "jwt_secret"):
        for suffix in ("", "_CMD", "_SECRET"):
            variable = f"AIRFLOW__API_AUTH__{option.upper()}{suffix}"
            if os.environ.get(variable):
                return f"the variable {variable}"
        if option == "jwt_secret" or conf.get("api_auth", option, fallback=""):
            return f"[api_auth] {option} of {_config_file()}"
    raise AssertionError("unreachable")


def _config_file() -> str:
    from airflow.configuration import AIRFLOW_CONFIG

    return str(AIRFLOW_CONFIG)


def _signer() -> Any:
    """Return Airflow's own generator of workloads' tokens, as an executor in this process would have it."""
    from airflow import exceptions
    from airflow.executors.base_executor import BaseExecutor
    from cryptography.exceptions import UnsupportedAlgorithm

    base: Any = BaseExecutor
    refused: Any = (cast(Any, exceptions).AirflowException, UnsupportedAlgorithm, ValueError, TypeError, OSError)
    try:
        # Without an executor: making one starts Airflow's metrics. The property does not use its object.
        return base.jwt_generator.func(None)
    except (*refused, AttributeError) as error:
        raise ModalflowError(f"Airflow cannot sign a task's token here: {describe(error)}") from error


def _public_half(key: Any) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public: bytes = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return public.decode()


def _fingerprint(secret: str, salt: str) -> str:
    return hmac.new(secret.encode(), f"modalflow compares {salt}".encode(), "sha256").hexdigest()[:32]
