"""The environment variables that every workload gets: the part of Airflow's configuration that a worker needs.

Reads the configuration of the Airflow host, and asks no one. With the remote logging that a deployment has configured,
the Airflow in a container uploads a task's log to where the API server looks for it.

The settings of masking and of remote logging are also in the Airflow home of containers. They are here for workers of
modalflow 0.4, which have no home: a submission to a newer worker leaves them out (``HomePublisher.without_stored``).
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from modalflow import airflow_logging, control_plane
from modalflow.airflow_compat import configuration, task_logs
from modalflow.config import variables
from modalflow.config.settings import Settings
from modalflow.config.urls import execution_api_url, without_user
from modalflow.errors import ConfigError
from modalflow.names import API_CLIENT_OPTIONS, API_URL_VARIABLE, MASKING_OPTIONS, airflow_variable

_BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
_REMOTE_LOGGING = "AIRFLOW__LOGGING__REMOTE_LOGGING"
_LOGGING_CLASS = "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"

#: The options of [logging] from which the log handlers of Airflow and its providers know where and how to upload.
_LOGGING_OPTIONS = (
    "remote_base_log_folder",
    "remote_log_conn_id",
    "remote_task_handler_kwargs",
    "encrypt_s3_logs",
    "google_key_path",
    "delete_local_logs",
)

#: The sections of log handlers that have one of their own.
_LOGGING_SECTIONS = (
    "azure_remote_logging",
    "aws",
    "elasticsearch",
    "elasticsearch_configs",
    "opensearch",
    "opensearch_configs",
)


def workload_env(settings: Settings, conf: Any) -> Mapping[str, str]:
    """Return the variables, the user's own included; raise ConfigError if no container could report to Airflow."""
    relayed = settings.uses_relay
    # A relay has one server: the host's own.
    url = _hosts_api_url(conf) if relayed else _api_url(settings, conf)
    if not relayed and _is_out_of_reach(url):
        raise ConfigError(
            "[modal_executor] execution_api_url",
            url,
            "a URL within reach of containers on Modal, where a loopback address is the container itself; or no URL "
            "and [modal_executor] execution_api = auto, for the relay",
        )
    env = {
        **masking_env(conf),
        **api_client_env(conf),
        **settings.worker_env,
        **configuration.executor_variables(),
        **remote_logging_env(),
        API_URL_VARIABLE: url,
        _BUNDLES: configuration.dag_bundle_config(conf),
    }
    variables.check("the environment of every workload", env)
    return env


def resolved(settings: Settings, conf: Any) -> Settings:
    """Return the settings, with the way to the Execution API for which `auto` stands, its URL on this host, and
    what else of Airflow's settings the engine needs."""
    settings = dataclasses.replace(
        settings,
        time_zone=configuration.default_timezone(conf),
        queued_timeout=configuration.queued_timeout(conf),
    )
    if not settings.uses_relay:
        return dataclasses.replace(settings, execution_api="direct")
    return dataclasses.replace(
        settings,
        execution_api="relay",
        execution_api_url=_hosts_api_url(conf),
        works_without_relay=works_without_relay(settings, conf),
    )


def works_without_relay(settings: Settings, conf: Any) -> bool:
    """Return whether containers may go directly to the host's URL as long as the deployed worker has no relay key.

    The worker of an older modalflow has none. Its tasks continue as before the upgrade, until you deploy it again.
    """
    return settings.execution_api == "auto" and settings.uses_relay and not _is_out_of_reach(_hosts_api_url(conf))


def _api_url(settings: Settings, conf: Any) -> str:
    return settings.execution_api_url or _hosts_api_url(conf)


def _hosts_api_url(conf: Any) -> str:
    return execution_api_url("[core] execution_api_server_url", configuration.execution_api_server_url(conf))


def _is_out_of_reach(url: str) -> bool:
    return control_plane.is_loopback(url) and not control_plane.is_local()


def comparable_settings(env: Mapping[str, str]) -> dict[str, str]:
    """Return what containers are given and another machine can compare with its own: setting → value, no secret."""
    settings = (
        {"the URL of the Execution API": without_user(env[API_URL_VARIABLE])} if env.get(API_URL_VARIABLE) else {}
    )
    try:
        bundles: Any = json.loads(env.get(_BUNDLES) or "[]")
        names = sorted(str(bundle["name"]) for bundle in bundles)
    except (KeyError, TypeError, ValueError):
        return settings
    return settings | {"the names in [dag_processor] dag_bundle_config_list": ", ".join(names)}


def masking_env(conf: Any) -> Mapping[str, str]:
    """Return the variables with which a worker masks what the Airflow host masks, if that is not Airflow's default.

    It does not matter how they are set on the host. A team's names are added to everyone's; its other settings replace
    everyone's.
    """
    set_here = {
        airflow_variable(section, option): value
        for section, option in MASKING_OPTIONS
        if (value := configuration.setting_if_set(conf, section, option)) is not None
    }
    names = airflow_variable("core", "sensitive_var_conn_names")
    everyone = configuration.setting_if_set(configuration.own_conf(), "core", "sensitive_var_conn_names")
    if everyone and set_here.get(names) != everyone:
        set_here[names] = f"{everyone},{set_here[names]}" if set_here.get(names) else everyone
    return set_here


def api_client_env(conf: Any) -> Mapping[str, str]:
    """Return the variables with the host's settings of the Execution API's client, if the host has any of its own.

    Workers have longer defaults than Airflow (``worker.environment.API_CLIENT_DEFAULTS``). Airflow writes its defaults
    into ``airflow.cfg``, so a default there is no decision of the user's; the same value in a variable is.
    """
    found = {}
    for section, option in API_CLIENT_OPTIONS:
        value = configuration.setting_if_set(conf, section, option)
        if value is None:
            value = os.environ.get(airflow_variable(section, option))
        if value is not None:
            found[airflow_variable(section, option)] = value
    return found


def remote_logging_env() -> Mapping[str, str]:
    """Return the variables that configure remote logging; only the one that disables it if logs go to the Volume."""
    # Airflow as a whole has one logging configuration, and teams have none.
    conf: Any = configuration.own_conf()
    is_remote = conf.getboolean("logging", "remote_logging", fallback=False)
    own_class = conf.get("logging", "logging_config_class", fallback="") or ""
    # Whether a class writes to the Volume is known only once Airflow has loaded it, at its start.
    if own_class and airflow_logging.is_in_use():
        return {_REMOTE_LOGGING: "False"}
    if not is_remote and not (own_class and task_logs.remote_task_log() is not None):
        return {_REMOTE_LOGGING: "False"}
    env = {_REMOTE_LOGGING: str(is_remote), **dict(_logging_options(conf))}
    if own_class:
        env[_LOGGING_CLASS] = own_class
    return env


def _logging_options(conf: Any) -> Iterator[tuple[str, str]]:
    for option in _LOGGING_OPTIONS:
        if value := conf.get("logging", option, fallback=None):
            yield f"AIRFLOW__LOGGING__{option.upper()}", str(value)
    for section in _LOGGING_SECTIONS:
        for option, value in (conf.getsection(section) or {}).items():
            if value not in (None, ""):
                yield f"AIRFLOW__{section.upper()}__{option.upper()}", str(value)
