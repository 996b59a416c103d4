"""The environment variables that every workload gets: the part of Airflow's configuration that a worker needs.

Reads the configuration of the Airflow host; asks nobody.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from modalflow import control_plane
from modalflow.airflow_compat import configuration
from modalflow.config import variables
from modalflow.config.settings import Settings, execution_api_url, without_user
from modalflow.errors import ConfigError
from modalflow.executor.remote_logging import remote_logging_env
from modalflow.names import API_CLIENT_OPTIONS, MASKING_OPTIONS, airflow_variable

_URL = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
_BUNDLES = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"


def workload_env(settings: Settings, conf: Any) -> Mapping[str, str]:
    """The variables, above those that the user wants there; ConfigError where no container could report to Airflow."""
    url = settings.execution_api_url or execution_api_url(
        "[core] execution_api_server_url", configuration.execution_api_server_url(conf)
    )
    if control_plane.is_loopback(url) and not control_plane.is_local():
        raise ConfigError(
            "[modal_executor] execution_api_url",
            url,
            "a URL within reach of containers on Modal; there, a loopback address is the container itself",
        )
    env = {
        **masking_env(conf),
        **api_client_env(conf),
        **settings.worker_env,
        **configuration.executor_variables(),
        **remote_logging_env(),
        _URL: url,
        _BUNDLES: configuration.dag_bundle_config(conf),
    }
    variables.check("the environment of every workload", env)
    return env


def of_containers(env: Mapping[str, str]) -> dict[str, str]:
    """Return what containers are given and another machine can compare with its own: setting → value, no secret."""
    told = {"the URL of the Execution API": without_user(env[_URL])} if env.get(_URL) else {}
    try:
        bundles: Any = json.loads(env.get(_BUNDLES) or "[]")
        names = sorted(str(bundle["name"]) for bundle in bundles)
    except (KeyError, TypeError, ValueError):
        return told
    return told | {"the names in [dag_processor] dag_bundle_config_list": ", ".join(names)}


def masking_env(conf: Any) -> Mapping[str, str]:
    """Return the variables with which a worker masks what the Airflow host masks, where that is not Airflow's default.

    However they are set on the host: a team's names count beside everybody's, as its other settings count above them.
    """
    set_here = {
        airflow_variable(section, option): value
        for section, option in MASKING_OPTIONS
        if (value := configuration.setting_if_set(conf, section, option)) is not None
    }
    names = airflow_variable("core", "sensitive_var_conn_names")
    everybody = configuration.setting_if_set(configuration.own_conf(), "core", "sensitive_var_conn_names")
    if everybody and set_here.get(names) != everybody:
        set_here[names] = f"{everybody},{set_here[names]}" if set_here.get(names) else everybody
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
