"""The only way to a ``modal.Client``: credentials from the Airflow connection if there is one, otherwise Modal's own.

Each process has one client, because an inherited client does not survive a fork; see ``support.forks``. Only
MODAL_SERVER_URL selects the control plane: Modal's or a local one.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import modal
from modal import exception
from modal.config import config as modal_config

from modalflow.errors import AirflowSettingError, ControlPlaneUnreachableError, CredentialsError, ModalflowError
from modalflow.support import forks
from modalflow.support.described import describe, words_of


@dataclass(frozen=True)
class ControlPlane:
    """An authenticated client, and the Modal environment for lookups of names."""

    client: modal.Client
    environment: str | None

    def scope(self) -> dict[str, Any]:
        """Return the keyword arguments of the SDK's ``from_name`` methods."""
        return {"client": self.client, "environment_name": self.environment}


def server_url() -> str:
    """Return the address of the SDK's control plane."""
    return str(modal_config.get("server_url"))


def is_local() -> bool:
    """Return whether the control plane and its containers run on this machine."""
    return is_loopback(server_url()) or urlsplit(server_url()).scheme == "unix"


def is_emulated() -> bool:
    """Return whether the control plane is another one than modal.com: on this machine, or in a private network."""
    # `modalflow local start --host` has no TLS, and modal.com nothing else.
    return is_local() or urlsplit(server_url()).scheme == "http"


def is_loopback(url: str) -> bool:
    """Return whether a URL's host is this machine, from this machine's view."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


_known: forks.PerProcess[tuple[str, str, str], ControlPlane] = forks.PerProcess()

Hook = Callable[[str], Any]
"""Returns the ModalHook of a connection id; None stands for "no Airflow here"."""


#: The name of the setting in an error of Airflow's configuration.
_SETTING = re.compile(r'"(?P<option>\w+)" key in "(?P<section>[\w.]+)" section')


def connect(*, conn_id: str = "", environment: str = "", hook: Hook | None = None) -> ControlPlane:
    """Return this process's control plane for a connection, made at the first call. Blocks: call it off the scheduler's
    thread.

    Raises CredentialsError for missing, incomplete or rejected credentials, and ControlPlaneUnreachableError without an
    answer.
    """
    key = (server_url(), conn_id, environment)
    known = _known.get(key)
    if known is None:
        forks.renew()
        # Without a lock: otherwise a silent control plane would block all other threads for a minute.
        known = _known.setdefault(key, _connect(conn_id, environment, hook))
    return known


def forget(control_plane: ControlPlane) -> None:
    """Make the next ``connect`` build a new client, with the credentials as they are then."""
    for key in [key for key, known in list(_known.items()) if known is control_plane]:
        _known.pop(key, None)


def _connect(conn_id: str, environment: str, hook: Hook | None) -> ControlPlane:
    source = f"the connection {conn_id!r}" if hook else "the environment"
    try:
        credentials, scope = None, None
        if hook is not None:
            modal_hook = hook(conn_id)
            credentials, scope = modal_hook.credentials, modal_hook.environment_name
        if credentials is None:
            source = "the environment or ~/.modal.toml"
            credentials = _ambient_credentials()
        # Not Client.from_env(): the whole process shares this one, and it never notices a rotated token.
        client: Any = modal.Client.from_credentials(*credentials)
        client.hello()
    except exception.AuthError as error:
        raise CredentialsError(_credentials_help(source, conn_id, error)) from error
    except exception.ConnectionError as error:
        raise ControlPlaneUnreachableError(unreachable(error)) from error
    except ModalflowError:
        raise
    except Exception as error:
        if type(error).__name__ == "AirflowConfigException":
            raise AirflowSettingError(_setting_help(error)) from error
        if type(error).__name__ in ("ModalConnectionError", "AirflowNotFoundException"):
            raise CredentialsError(_credentials_help(source, conn_id, error)) from error
        if isinstance(error, exception.Error | OSError):
            raise ControlPlaneUnreachableError(unreachable(error)) from error
        raise
    return ControlPlane(client, environment or scope or None)


def _ambient_credentials() -> tuple[str, str]:
    token_id, token_secret = modal_config.get("token_id"), modal_config.get("token_secret")
    if not token_id or not token_secret:
        raise exception.AuthError("there is no token id with its secret")
    return token_id, token_secret


def in_environment(environment: str | None, error: BaseException) -> str:
    """Return a phrase with the Modal environment of a missing object, for the end of a sentence.

    Modal's own message mostly names the environment, as the server resolved it. An empty name means the workspace's
    default, and only the server knows that. Then the phrase is empty, so no sentence names two environments.
    """
    if "environment" in words_of(error).lower():
        return ""
    return f" in Modal environment {environment!r}" if environment else " in the workspace's default environment"


#: The advice for a control plane without an answer.
CHECK_NETWORK = "Check the network, or MODAL_SERVER_URL."


def unreachable(error: BaseException) -> str:
    """Return the message for a control plane without an answer."""
    return f"Modal at {server_url()} does not answer ({words_of(error)}). {CHECK_NETWORK}"


#: The advice for a setting that this machine's Airflow refuses.
AS_FOR_SCHEDULER = "Set PYTHONPATH and Airflow's variables here as for the scheduler, or correct the setting."


def _setting_help(error: Exception) -> str:
    named = _SETTING.search(words_of(error))
    setting = f"[{named['section']}] {named['option']}" if named else "A setting"
    return (
        f"{setting} does not work in Airflow on this machine: {describe(error, with_context=True).rstrip('.')}. "
        f"{AS_FOR_SCHEDULER}"
    )


def _credentials_help(source: str, conn_id: str, error: BaseException) -> str:
    connection = f"the Airflow connection {conn_id!r}" if conn_id else "an Airflow connection"
    return (
        f"Modal refused the credentials from {source} at {server_url()}: {words_of(error)}. Set login (token id) and "
        f"password (token secret) of {connection}, or MODAL_TOKEN_ID and MODAL_TOKEN_SECRET; a token is made with "
        "`modal token new`, and `modalflow local env` prints those of a local control plane."
    )
