"""The environment variables of what runs in the container. Pure: reads no process, changes none."""

from __future__ import annotations

import json
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

BASE_LOG_FOLDER = "AIRFLOW__LOGGING__BASE_LOG_FOLDER"
REMOTE_LOGGING = "AIRFLOW__LOGGING__REMOTE_LOGGING"
LOGGING_CONFIG = "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"
BUNDLE_LIST = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"
LOAD_EXAMPLES = "AIRFLOW__CORE__LOAD_EXAMPLES"
BUNDLE_STORAGE = "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH"

#: Airflow looks these up whenever they are wanted. Everything else that begins so may have been read at import.
READ_LIVE = (
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__EXECUTOR",
    LOAD_EXAMPLES,
    "AIRFLOW__CORE__MULTI_TEAM",
    BUNDLE_LIST,
    # Read when Airflow is imported, and again for each workload (``airflow_compat.configure_masking``).
    *(airflow_variable(section, option) for section, option in MASKING_OPTIONS),
    # The same (``airflow_compat.configure_api_client``).
    *(airflow_variable(section, option) for section, option in API_CLIENT_OPTIONS),
)
_READ_LIVE_PREFIXES = ("AIRFLOW_CONN_", "AIRFLOW_VAR_")
_READ_AT_IMPORT_PREFIXES = ("AIRFLOW", "PYTHON", "LD_", "OTEL_", "LANG", "LC_", "MALLOC_", "GLIBC_", PRELOAD_VARIABLE)

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

#: What Airflow takes for yes.
_TRUE = frozenset({"t", "true", "1"})


def submitted(profile: Mapping[str, str], env: Mapping[str, str], own: Iterable[str]) -> dict[str, str]:
    """What was submitted, below what the profile and the deployment set, below what the task itself asked for."""
    return {**env, **profile, **{name: env[name] for name in own if name in env}}


def of_command(container: Mapping[str, str], given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a raw command: the container's, and above it what was submitted."""
    return {**container, **given}


def of_workload(
    container: Mapping[str, str],
    given: Mapping[str, str],
    *,
    home: str,
    folders: Mapping[str, str],
    examples: bool = False,
    log_root: str = LOGS_MOUNT,
) -> dict[str, str]:
    """The environment of one of Airflow's workloads.

    Above the container's variables come the submitted ones, and above these the few that only the worker can know.
    ``home`` is a folder of the container's own; ``folders`` maps DAG bundles to where they are in the container.
    ``examples`` is for one whose DAG is an example of Airflow's or of a provider's: looking for these takes time.
    ``log_root`` is where the logs Volume is.
    """
    # Bundles that fetch by themselves do so into this container's own folder.
    own = {
        **API_CLIENT_DEFAULTS,
        LOAD_EXAMPLES: str(examples),
        REMOTE_LOGGING: "False",
        BUNDLE_STORAGE: f"{home}/dag_bundles",
    }
    env = {**own, **container, **given}
    env.update(
        {
            "AIRFLOW_HOME": home,
            "AIRFLOW__CORE__HOSTNAME_CALLABLE": "modalflow.worker.hostname.container_id",
            # A remote logging of the deployment's own uploads what it finds in a folder that is Airflow's alone.
            BASE_LOG_FOLDER: f"{home}/logs" if has_remote_logging(env) else log_root,
        }
    )
    if bundles := rewrite_bundles(env.get(BUNDLE_LIST), folders):
        env[BUNDLE_LIST] = bundles
    return env


def has_remote_logging(env: Mapping[str, str]) -> bool:
    """Whether Airflow has a remote logging of the deployment's own there."""
    return env.get(REMOTE_LOGGING, "").lower() in _TRUE or bool(env.get(LOGGING_CONFIG))


def of_zygote(container: Mapping[str, str], workload: Mapping[str, str]) -> dict[str, str]:
    """The environment of the zygote that can run a workload: the container's, and what is read at import.

    Nothing else of the workload's: each process that is forked later shows the zygote's variables in its
    ``/proc/self/environ``, and others' secrets must not be there.
    """
    live = {name: value for name, value in container.items() if not _is_read_at_import(name)}
    return live | dict(read_at_import(workload))


def read_at_import(env: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """What Airflow, or Python, may have read of ``env`` while it was imported.

    Workloads that differ in it cannot be forked from the same zygote.
    """
    return tuple(sorted((name, value) for name, value in env.items() if _is_read_at_import(name)))


def _is_read_at_import(name: str) -> bool:
    return (
        name.startswith(_READ_AT_IMPORT_PREFIXES) and name not in READ_LIVE and not name.startswith(_READ_LIVE_PREFIXES)
    )


def classes_of_bundles(listed: str | None) -> dict[str, str]:
    """The bundles in the scheduler's list: name → class. None where there is no list, or something else."""
    return {
        str(bundle["name"]): str(bundle.get("classpath"))
        for bundle in _read(listed) or []
        if isinstance(bundle, dict) and bundle.get("name")
    }


def rewrite_bundles(listed: str | None, folders: Mapping[str, str]) -> str | None:
    """Point DAG bundles of the Airflow host to where they are in this container.

    ``listed`` is the scheduler's list, which names its own folders. Bundles of other kinds, and those that are not
    here, stay as they are. Without a list, those that are here are listed. Text that is no list is left to Airflow,
    whose error message names the setting.
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
        # It has been brought here already. Its arguments say where it comes from.
        return bundle | _local(bundle["name"], folder, {})
    if bundle.get("classpath") == LOCAL_BUNDLE:
        return bundle | _local(bundle["name"], folder, bundle.get("kwargs") or {})
    return bundle


def _local(name: str, folder: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": name, "classpath": LOCAL_BUNDLE, "kwargs": {**kwargs, "path": folder}}
