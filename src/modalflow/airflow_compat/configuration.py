"""Airflow's configuration, as the executor, the worker, the API server and the commands read it.

Cheap to import: functions import Airflow's own modules at their use. Without Airflow, the import of this module raises
ImportError. Commands also run without Airflow, and catch it.
"""

from __future__ import annotations

from typing import Any

from modalflow.airflow_compat import versions  # It imports Airflow: see the module's docstring.
from modalflow.config.budgets import known_zone
from modalflow.errors import CredentialsError


def own_conf() -> Any:
    """Return the configuration of this process's Airflow."""
    from airflow.configuration import conf

    return conf


def conf_of_team(team: str | None) -> Any:
    """Return the configuration as seen by an executor of this team."""
    if team is None:
        return own_conf()
    from airflow.executors.base_executor import ExecutorConf

    return ExecutorConf(team)


def conf_with_providers(section: str) -> Any:
    """Return the configuration with a provider's section. Outside of a scheduler, some versions load it late."""
    conf = own_conf()
    if conf.getsection(section) is None:
        _load_provider_options()
    return conf


def load_provider_options() -> None:
    """Load the defaults of providers' options, which every command of Airflow has. Newer versions need no call."""
    if not versions.AIRFLOW_V_3_2_PLUS:
        _load_provider_options()


def _load_provider_options() -> None:
    from airflow.providers_manager import ProvidersManager

    manager: Any = ProvidersManager
    manager().initialize_providers_configuration()


def default_queue(conf: Any) -> str:
    """Return the default queue of tasks."""
    return _global_setting(conf, "operators", "default_queue") or "default"


def default_timezone(conf: Any) -> str:
    """Return the name of Airflow's default time zone; UTC if this machine does not know it."""
    name = _global_setting(conf, "core", "default_timezone") or "UTC"
    if name == "system":
        # It imports more of Airflow.
        from modalflow.airflow_compat.host_options import host_timezone

        name = host_timezone() or "UTC"
    return known_zone(name)


def queued_timeout(conf: Any) -> float:
    """Return the seconds after which Airflow gives up a queued task; at least 1."""
    try:
        return max(1.0, float(_global_setting(conf, "scheduler", "task_queued_timeout") or 600.0))
    except ValueError:
        # Airflow itself refuses to start with it.
        return 600.0


def execution_api_server_url(conf: Any) -> str:
    """Return the Execution API's URL as Airflow itself resolves it."""
    base_url = _global_setting(conf, "api", "base_url") or "/"
    if base_url.startswith("/"):
        base_url = f"http://localhost:8080{base_url}"
    return _global_setting(conf, "core", "execution_api_server_url") or f"{base_url.rstrip('/')}/execution/"


def dag_bundle_config(conf: Any) -> str:
    """Return the DAG bundle configuration as JSON text, as a worker needs it."""
    return _global_setting(conf, "dag_processor", "dag_bundle_config_list") or "[]"


def setting_if_set(conf: Any, section: str, key: str) -> str | None:
    """Return a setting of Airflow's own, with its global value if the team has none; None if it is the default."""
    value = _global_setting(conf, section, key)
    return None if value == str(own_conf().get_default_value(section, key) or "") else value


def _global_setting(conf: Any, section: str, key: str) -> str:
    """Return a setting of Airflow's own: the team's if it has one, otherwise the one for all teams.

    If a team has no value, Airflow itself falls back to the option's default and ignores the global value.
    """
    value = conf.get(section, key, fallback="") or ""
    if getattr(conf, "team_name", None):
        everybody = own_conf()
        if value == (everybody.get_default_value(section, key) or ""):
            value = everybody.get(section, key, fallback="") or ""
    return str(value)


def airflow_home() -> str:
    """Return the folder of this process's Airflow."""
    from airflow.configuration import AIRFLOW_HOME

    return str(AIRFLOW_HOME)


def is_multi_team() -> bool:
    """Return whether Airflow has teams with executors of their own."""
    return bool(own_conf().getboolean("core", "multi_team", fallback=False))


def executor_variables() -> dict[str, str]:
    """Return variables with the scheduler's executors for a worker's Airflow.

    Without them, it refuses every DAG with a task's executor name, and all DAGs if a bundle belongs to a team. It
    searches for the names, and imports nothing by them.
    """
    names = {"AIRFLOW__CORE__EXECUTOR": str(own_conf().get("core", "executor"))}
    return {**names, "AIRFLOW__CORE__MULTI_TEAM": "True"} if is_multi_team() else names


def modal_hook(conn_id: str) -> Any:
    """Return the ModalHook of a connection id. Raises CredentialsError if its provider is missing."""
    try:
        from airflow.providers.modal.hooks.modal import ModalHook
    except ModuleNotFoundError as error:
        raise CredentialsError(
            f"{error.name} is not installed, and with it the connection type `modal`; expected the Modal provider "
            "beside Airflow: `pip install apache-airflow-providers-modal`."
        ) from error
    return ModalHook(conn_id)
