"""The environment variables of the processes in the container. Reads and changes no process."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from modalflow.bundles.configured import LOCAL_BUNDLE, VOLUME_BUNDLE
from modalflow.names import (
    API_CLIENT_OPTIONS,
    LOGS_MOUNT,
    MASKING_OPTIONS,
    PRELOAD_VARIABLE,
    airflow_variable,
)
from modalflow.worker.airflow_home.airflow_home import AirflowHome
from modalflow.worker.airflow_home.own_home import CONFIG_VARIABLE, PLUGINS_VARIABLE

BASE_LOG_FOLDER = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
REMOTE_LOGGING = "AIRFLOW__LOGGING__REMOTE_LOGGING"
LOGGING_CONFIG = "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"
BUNDLE_LIST = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
LOAD_EXAMPLES = "AIRFLOW__CORE__LOAD_EXAMPLES"
PYTHON_PATH = "PYTHONPATH"
BUNDLE_STORAGE = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"

#: Airflow reads these each time it needs them. All other variables of Airflow may have been read at import.
READ_LIVE = (
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__MULTI_TEAM",
    BUNDLE_LIST,
    # Airflow reads them at import, and the worker reads them again for each workload (``configure_masking``).
    *(airflow_variable(section, option) for section, option in MASKING_OPTIONS),
    # The same (``configure_api_client``).
    *(airflow_variable(section, option) for section, option in API_CLIENT_OPTIONS),
)
_READ_LIVE_PREFIXES = ("AIRFLOW_CONN_", "AIRFLOW_VAR_")
_READ_AT_IMPORT_PREFIXES = (
    "AIRFLOW",
    "PYTHON",
    "LD_",
    "OTEL_",
    "OPENLINEAGE_",
    "LANG",
    "LC_",
    "MALLOC_",
    "GLIBC_",
    PRELOAD_VARIABLE,
)

#: Seconds that a worker waits for an answer of the Execution API; Airflow's default is 5. A request that a client gives
#: up is still carried out by the API server, and comes again: a server with a long queue gets more work by that.
API_TIMEOUT = 30.0
#: How often a worker sends a request before its task fails; Airflow's default is 5. If the API server refuses
#: connections, that is 50 s on average instead of 10 s: enough to restart it. If it does not answer at all, the last
#: attempt ends after about 290 s, when Airflow takes the task for dead ([scheduler] task_instance_heartbeat_timeout).
API_ATTEMPTS = 8
#: The longest pause between two of them, in seconds; Airflow's default is 90. Heartbeats go through the same retries,
#: so a task must not sleep through the rest of that timeout once the API server is back.
API_LONGEST_PAUSE = 30.0
#: Below all that the host, the deployment or the task sets. The shortest pause stays Airflow's: 1 s.
API_CLIENT_DEFAULTS: Mapping[str, str] = {
    airflow_variable("workers", "execution_api_timeout"): str(API_TIMEOUT),
    airflow_variable("workers", "execution_api_retries"): str(API_ATTEMPTS),
    airflow_variable("workers", "execution_api_retry_wait_max"): str(API_LONGEST_PAUSE),
}

#: The values that Airflow accepts as true.
_TRUE = frozenset({"t", "true", "1"})


def submitted(profile: Mapping[str, str], env: Mapping[str, str], own: Iterable[str]) -> dict[str, str]:
    """Return the submitted variables, overridden by the profile's and the deployment's, then by the task's own."""
    return {**env, **profile, **{name: env[name] for name in own if name in env}}


def of_command(container: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a raw command: the container's, overridden by what was submitted."""
    return {**container, **given}


def of_workload(
    container: Mapping[str, str],
    given: Mapping[str, str],
    *,
    home: str,
    folders: Mapping[str, str],
    examples: bool = False,
    log_root: str = LOGS_MOUNT,
    airflow: AirflowHome | None = None,
) -> dict[str, str]:
    """Return the environment of one of Airflow's workloads.

    The submitted variables override the container's, and both are overridden by the few that only the worker knows.
    ``home`` is a folder of the container's own; ``folders`` maps DAG bundles to their folders in the container.
    ``examples`` says that the DAG is an example of Airflow or of a provider: searching for these takes time.
    ``log_root`` is the folder of the logs Volume. ``airflow`` is Airflow's home with the host's configuration; without
    it, Airflow's home is ``home``.
    """
    # Bundles that fetch their own files do so into this container's own folder.
    own = {
        **API_CLIENT_DEFAULTS,
        LOAD_EXAMPLES: str(examples),
        REMOTE_LOGGING: "False",
        BUNDLE_STORAGE: f"{home}/dag_bundles",
    }
    airflow = airflow or AirflowHome(home)
    # The image's own configuration and plugins are part of the home.
    moved = {
        name: place
        for name, place in ((CONFIG_VARIABLE, airflow.config), (PLUGINS_VARIABLE, airflow.plugins))
        if name in container and given.get(name, container[name]) == container[name]
    }
    env = {**own, **airflow.variables, **container, **given, **moved}
    env.update(
        {
            "AIRFLOW_HOME": airflow.folder,
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "modalflow.worker.hostname.container_id",
            # A remote logging of the deployment's own uploads from this folder, which must then be Airflow's alone.
            BASE_LOG_FOLDER: f"{home}/logs" if has_remote_logging(env) else log_root,
        }
    )
    if airflow.modules:
        # Behind the image's own: these win over the host's.
        env[PYTHON_PATH] = os.pathsep.join(filter(None, (env.get(PYTHON_PATH), airflow.modules)))
    if bundles := rewrite_bundles(env.get(BUNDLE_LIST), folders):
        env[BUNDLE_LIST] = bundles
    return env


def has_remote_logging(env: Mapping[str, str]) -> bool:
    """Return whether Airflow has a remote logging of the deployment's own with these variables."""
    return env.get(REMOTE_LOGGING, "").lower() in _TRUE or bool(env.get(LOGGING_CONFIG))


def of_zygote(container: Mapping[str, str], workload: Mapping[str, str], read: Iterable[str] = ()) -> dict[str, str]:
    """Return the environment of the zygote for a workload: the container's, and what is read at import.

    It has nothing else of the workload. Each process that is forked later shows the zygote's variables in its
    ``/proc/self/environ``, and these must not include the secrets of others. ``read`` are more variables, read by
    the host's code at its import.
    """
    of_code = frozenset(read)
    live = {name: value for name, value in container.items() if not is_read_at_import(name) and name not in of_code}
    return live | dict(read_at_import(workload)) | {name: workload[name] for name in of_code if name in workload}


def read_at_import(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Return the variables that Airflow or Python may read from ``env`` at import.

    Workloads that differ in them cannot be forked from the same zygote.
    """
    return tuple(sorted((name, value) for name, value in env.items() if is_read_at_import(name)))


def is_read_at_import(name: str) -> bool:
    """Return whether Airflow or Python may read a variable at import."""
    return (
        name.startswith(_READ_AT_IMPORT_PREFIXES) and name not in READ_LIVE and not name.startswith(_READ_LIVE_PREFIXES)
    )


def classes_of_bundles(listed: str | None) -> dict[str, str]:
    """Return the bundles in the scheduler's list: name → class. Empty if there is no list, or something else."""
    return {
        str(bundle["name"]): str(bundle.get("classpath"))
        for bundle in _read(listed) or []
        if isinstance(bundle, dict) and bundle.get("name")
    }


def rewrite_bundles(listed: str | None, folders: Mapping[str, str]) -> str | None:
    """Return the list of DAG bundles with their folders in this container.

    ``listed`` is the scheduler's list, which has the folders of the Airflow host. Bundles of other kinds, and those
    that are not here, stay unchanged. If there is no list, the result lists the bundles that are here. If the text is
    no list, it is returned unchanged: Airflow's error message names the setting.
    """
    if listed is None:
        if not folders:
            return None
        return json.dumps([_local(name, folder, {}) for name, folder in folders.items()])
    bundles = _read(listed)
    return listed if bundles is None else json.dumps([_rewritten(bundle, folders) for bundle in bundles])


def _read(listed: str | None) -> list[Any] | None:
    try:
        bundles: Any = json.loads(listed or "null")
    except ValueError:
        return None
    return bundles if isinstance(bundles, list) else None


def _rewritten(bundle: Any, folders: Mapping[str, str]) -> Any:
    if not isinstance(bundle, dict) or bundle.get("name") not in folders:
        return bundle
    folder = folders[bundle["name"]]
    if bundle.get("classpath") == VOLUME_BUNDLE:
        # It has been fetched already. Its arguments name the source, which Airflow no longer needs.
        return bundle | _local(bundle["name"], folder, {})
    if bundle.get("classpath") == LOCAL_BUNDLE:
        return bundle | _local(bundle["name"], folder, bundle.get("kwargs") or {})
    return bundle


def _local(name: str, folder: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "classpath": LOCAL_BUNDLE, "kwargs": {**kwargs, "path": folder}}
