"""The context of a command: the settings, and this machine's connection to Modal.

Without Airflow, or without a readable configuration, it uses environment variables and defaults.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from modalflow.config.budgets import known_zone
from modalflow.config.settings import SECTION, Settings
from modalflow.config.source import ConfigSource, Variables
from modalflow.control_plane import ControlPlane, Hook, connect, in_environment, is_emulated, server_url
from modalflow.errors import ControlPlaneUnreachableError, CredentialsError, ModalflowError, NotDeployedError
from modalflow.names import Names
from modalflow.protocol.plain_data import plain_data_only
from modalflow.support import bounded
from modalflow.support.described import describe, words_of

_T = TypeVar("_T")

#: Time limit for one answer of Modal, in seconds.
PATIENCE = 30.0


def airflow_conf() -> Any | None:
    """This machine's Airflow configuration; None where Airflow is not installed."""
    try:
        from modalflow.airflow_compat.configuration import conf_with_providers
    except ImportError:
        return None
    return conf_with_providers(SECTION)


def config_source() -> ConfigSource:
    """Return the source of this machine's options."""
    return airflow_conf() or Variables(os.environ)


@dataclass(frozen=True)
class Site:
    """One worker app, and the connection to where it is."""

    settings: Settings
    control_plane: ControlPlane

    @property
    def names(self) -> Names:
        return self.settings.names

    @property
    def scope(self) -> dict[str, Any]:
        return self.control_plane.scope()

    @property
    def deploy_command(self) -> str:
        """The command to deploy its worker."""
        return deploy_command(self.settings)


def deploy_command(settings: Settings) -> str:
    """Return the command to deploy the worker of these settings."""
    environment = f" --environment {settings.environment}" if settings.environment else ""
    return f"modalflow deploy --app {settings.app_name}{environment}"


def not_deployed(site: Site, error: BaseException) -> NotDeployedError:
    """Return the error for a worker app unknown to Modal."""
    where, error_text = in_environment(site.control_plane.environment, error), words_of(error).rstrip(".")
    return NotDeployedError(
        f"The worker app {site.names.app!r} is not deployed{where}: {error_text}. Deploy it: `{site.deploy_command}`, "
        "or name another one with --app and --environment."
    )


def check_the_way() -> str:
    """Return advice for a Modal that does not answer."""
    if is_emulated():
        return (
            "Check that the local control plane runs (`modalflow local status`), and that MODAL_SERVER_URL is its "
            'address: eval "$(modalflow local env)".'
        )
    return "Check the network of this machine, or MODAL_SERVER_URL."


def read_settings(app: str = "", environment: str = "") -> Settings:
    """Return this machine's executor settings, with a command line's on top. Raises ConfigError for a mistake."""
    conf = airflow_conf()
    settings = Settings.read(conf or Variables(os.environ))
    return override(dataclasses.replace(settings, time_zone=time_zone_of(conf)), app, environment)


def time_zone_of(conf: Any | None) -> str:
    """Return the zone of the days and months of budgets, from this machine's Airflow or its variables."""
    if conf is None:
        return known_zone(os.environ.get("AIRFLOW__CORE__DEFAULT_TIMEZONE", "UTC"))
    from modalflow.airflow_compat.configuration import default_timezone

    return default_timezone(conf)


def override(settings: Settings, app: str, environment: str) -> Settings:
    """Return settings with another app or environment, if given."""
    return dataclasses.replace(
        settings, app_name=app or settings.app_name, environment=environment or settings.environment
    )


def open_site(settings: Settings) -> Site:
    """Connect; raise CredentialsError or ControlPlaneUnreachableError."""
    patience = settings.connect_timeout

    def connected() -> ControlPlane:
        return connect(conn_id=settings.conn_id, environment=settings.environment, hook=_hook())

    try:
        return Site(settings, within(patience, connected))
    except TimeoutError as error:
        raise ControlPlaneUnreachableError(
            f"Modal at {server_url()} did not answer within {patience:g} s. {check_the_way()}"
        ) from error
    except ModalflowError:
        raise
    except Exception as error:
        # The connection is in Airflow's database or in a secrets backend. All their errors end here.
        raise CredentialsError(
            f"The Airflow connection {settings.conn_id!r} cannot be read ({describe(error)}). Make "
            "Airflow's database or secrets backend reachable from here, or set AIRFLOW_CONN_MODAL_DEFAULT=modal:// "
            "to use MODAL_TOKEN_ID and MODAL_TOKEN_SECRET."
        ) from error


def _hook() -> Hook | None:
    try:
        from modalflow.airflow_compat.configuration import modal_hook
    except ImportError:
        return None
    return modal_hook


def within(seconds: float, work: Callable[[], _T], *, lenient: bool = False) -> _T:
    """Return the result of a call of the SDK, with plain data only. Raises TimeoutError after the limit.

    If ``lenient``, an unreadable value is UNREADABLE instead of an error.
    """

    def plainly() -> _T:
        with plain_data_only(lenient=lenient):
            return work()

    return bounded.within(seconds, plainly)
