"""Another value than the default for every option that travels, is sealed, or belongs to the worker.

The options are Airflow's own list of the installed version, and the table of rules has their places. Switches and
numbers follow from their types. A text has its value here; ``unaccounted`` names those without.
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from modalflow.airflow_compat.configuration import own_conf
from modalflow.airflow_compat.host_options import declared_options
from modalflow.airflow_home.rules.rule import Place
from modalflow.airflow_home.rules.table import place_of
from tests.airflows import AIRFLOW

Key = tuple[str, str]

#: The folder of the modules that the values name, for the path of the Airflow host.
MODULES: Final = Path(__file__).parent / "path"

#: Stands for the folder of a test in a value.
_FOLDER: Final = "{folder}"
_SWITCHES: Final = {"true": "False", "false": "True"}

#: Section → option → value, for texts, and for numbers and switches with few valid values.
VALUES: Final[Mapping[str, Mapping[str, str]]] = {
    "atlas": {"host": "atlas.example", "username": "acme", "password": "of-atlas"},
    "callbacks": {"callback_execution_timeout": "600"},
    "common.io": {
        "state_store_objectstorage_compression": "gzip",
        "state_store_objectstorage_path": f"file://{_FOLDER}/states",
        "state_store_objectstorage_threshold": "100",
        "xcom_objectstorage_compression": "gzip",
        "xcom_objectstorage_path": f"file://{_FOLDER}/xcoms",
        "xcom_objectstorage_threshold": "200",
    },
    "core": {
        "allowed_deserialization_classes": "airflow.* acme.*",
        "allowed_deserialization_classes_regexp": r"acme\..*",
        "dag_ignore_file_syntax": "regexp",
        "default_impersonation": getpass.getuser(),
        "default_task_execution_timeout": "3600",
        "default_task_retry_delay": "1",
        "default_task_weight_rule": "upstream",
        "default_timezone": "Europe/Berlin",
        "might_contain_dag_callable": "acme_options.might_contain_dag",
        "rerun_with_latest_version": "True",
        "security": "kerberos",
        "sensitive_var_conn_names": "acme_word",
        "xcom_backend": "acme_options.OwnXCom",
        "execute_tasks_new_python_interpreter": "True",
        "hostname_callable": "socket.gethostname",
        # Airflow pauses a DAG after so many failed runs.
        "max_consecutive_failed_dag_runs_per_dag": "1000",
    },
    "dag_processor": {"dag_bundle_storage_path": f"{_FOLDER}/bundles"},
    "elasticsearch": {
        "end_of_log_mark": "acme_end",
        "frontend": "es.example/{log_id}",
        "host": "es.example",
        "host_field": "acme_host",
        "index_patterns": "acme-*",
        "json_fields": "asctime, message",
        "log_id_template": "acme-{dag_id}-{task_id}-{run_id}-{map_index}-{try_number}",
        "offset_field": "acme_offset",
        "target_index": "acme-logs",
    },
    "email": {
        "email_backend": "acme_options.send_email",
        "email_conn_id": "acme_smtp",
        "from_email": "acme@example.com",
        "html_content_template": f"{_FOLDER}/content.j2",
        "ssl_context": "none",
        "subject_template": f"{_FOLDER}/subject.j2",
    },
    "hive": {"default_hive_mapred_queue": "acme"},
    "kerberos": {"principal": "acme"},
    "logging": {
        "callsite_parameters": "filename,lineno,func_name",
        "extra_logger_names": "acme",
        "file_task_handler_new_file_permissions": "0o660",
        "file_task_handler_new_folder_permissions": "0o770",
        "google_key_path": f"{_FOLDER}/key.json",
        "log_format": "[%(asctime)s] acme %(levelname)s - %(message)s",
        "log_formatter_class": "acme_options.OwnFormatter",
        "log_timestamp_format": "%Y-%m-%d %H:%M:%S",
        "logging_level": "DEBUG",
        "namespace_levels": "acme=WARNING",
        "remote_base_log_folder": f"{_FOLDER}/remote-logs",
        # Before 3.2, Airflow fails every task of LocalExecutor if the connection of the task logs does not exist.
        "remote_log_conn_id": "acme_logs" if AIRFLOW >= (3, 2) else "smtp_default",
        "remote_task_handler_kwargs": '{"delete_local_copy": true}',
        "secret_mask_adapter": "acme_options.mask",
        "simple_log_format": "%(asctime)s acme %(levelname)s - %(message)s",
        "task_log_prefix_template": "{{ ti.task_id }}",
    },
    "metrics": {
        "metrics_allow_list": r".*",
        "metrics_block_list": r"^acme\.",
        "otel_host": "127.0.0.1",
        "otel_prefix": "acme",
        "otel_service": "acme",
        "stat_name_handler": "acme_options.stat_name",
        "statsd_custom_client_path": "acme_statsd.OwnClient",
        "statsd_datadog_tags": "acme:yes",
        "statsd_disabled_tags": "job_id",
        # An address of the other version of the protocol, for `statsd_ipv6`.
        "statsd_host": "::ffff:127.0.0.1",
        "statsd_prefix": "acme",
    },
    "openlineage": {
        "config_conn_id": "acme_lineage",
        "config_path": f"{_FOLDER}/openlineage.yml",
        "custom_run_facets": "acme_options.run_facet",
        "disabled_for_operators": "acme.AcmeOperator",
        "emission_policy": '[{"scope": {"dag_id": "acme"}, "controls": {"extract_operator_metadata": false}}]',
        "extractors": "acme_options.OwnExtractor",
        "namespace": "acme",
        "transport": '{"type": "console"}',
    },
    "opensearch": {
        "end_of_log_mark": "acme_end",
        "host": "os.example",
        "host_field": "acme_host",
        "index_patterns": "acme-*",
        "index_patterns_callable": "acme_options.index_patterns",
        "json_fields": "asctime, message",
        "log_id_template": "acme-{dag_id}-{task_id}-{run_id}-{map_index}-{try_number}",
        "offset_field": "acme_offset",
        "password": "of-opensearch",
        "port": "9201",
        "username": "acme",
    },
    "opensearch_configs": {"ca_certs": f"{_FOLDER}/ca.pem"},
    "operators": {"default_owner": "acme", "default_queue": "acme"},
    "scheduler": {
        "allowed_run_id_pattern": "^[A-Za-z0-9_.~:+-]{1,250}$",
        # As the stacks have it, for tests that wait for it.
        "task_instance_heartbeat_timeout": "60",
    },
    "sdk": {
        "coordinators": '{"acme": {"classpath": "acme_options.OwnCoordinator", "kwargs": {}}}',
        "queue_to_coordinator": '{"acme-java": "acme"}',
    },
    "secrets": {"backend": "acme_options.OwnSecrets", "backend_kwargs": '{"acme": "of-the-host"}'},
    "sentry": {"before_send": "acme_options.before_send", "sentry_dsn": "http://acme@127.0.0.1:9/1"},
    "smtp": {"smtp_host": "127.0.0.1", "smtp_mail_from": "acme@example.com"},
    "standard": {"venv_install_method": "pip"},
    "traces": {
        "otel_host": "127.0.0.1",
        "otel_service": "acme",
        # A task waits so long at its end for a collector that does not answer.
        "task_runner_flush_timeout_milliseconds": "500",
    },
    "workers": {
        "min_heartbeat_interval": "1",
        "missing_dag_retry_delay": "1",
        "secrets_backend": "acme_options.OwnSecrets",
        "secrets_backend_kwargs": '{"acme": "of-the-worker"}',
        "state_store_backend": "acme_options.OwnState",
    },
}

#: Options with another value in every stack of the tests: an address, a folder or a name of its own.
OF_EACH_STACK: Final[frozenset[Key]] = frozenset(
    {
        ("api", "base_url"),
        ("core", "dags_folder"),
        ("core", "execution_api_server_url"),
        ("core", "executor"),
        ("core", "load_examples"),
        ("core", "plugins_folder"),
        ("dag_processor", "dag_bundle_config_list"),
        ("logging", "base_log_folder"),
        ("logging", "logging_config_class"),
    }
)

#: Option → why it keeps its default.
LEFT_OUT: Final[Mapping[Key, str]] = {
    ("core", "multi_team"): "It makes every stack one with teams. tests/acceptance/teams has such a stack.",
    ("logging", "remote_logging"): "It needs a store. With modalflow's logging class, logs go to the logs Volume.",
    ("metrics", "statsd_datadog_enabled"): "It replaces the client of `statsd_on`, and needs the package datadog.",
    ("metrics", "statsd_influxdb_enabled"): "It changes the form of every metric of `statsd_on`.",
}


def changed(folder: Path) -> dict[Key, str]:
    """Return the values; ``folder`` is the test's own. Not those of ``OF_EACH_STACK``, and of ``LEFT_OUT``."""
    found = {key: _value(key, described) for key, described in _options().items()}
    return {key: value.replace(_FOLDER, str(folder)) for key, value in found.items() if value is not None}


def unaccounted() -> list[Key]:
    """Return the options with neither a value nor a reason for having none."""
    without = [key for key, described in _options().items() if _value(key, described) is None]
    return sorted({*without} - OF_EACH_STACK - LEFT_OUT.keys())


def unchanged(values: Mapping[Key, str]) -> list[Key]:
    """Return the options for which ``values`` has Airflow's default."""
    conf: Any = own_conf()
    return sorted(key for key, value in values.items() if value == str(conf.get_default_value(*key) or ""))


def _options() -> dict[Key, Mapping[str, Any]]:
    places = (Place.TRAVELS, Place.SEALED, Place.WORKER)
    renamed: Any = own_conf().inversed_deprecated_options
    return {
        key: described
        for key, described in declared_options().items()
        if key not in renamed and place_of(*key, "", sensitive=bool(described.get("sensitive"))).place in places
    }


def _value(key: Key, described: Mapping[str, Any]) -> str | None:
    if key in OF_EACH_STACK or key in LEFT_OUT:
        return None
    section, option = key
    if (value := VALUES.get(section, {}).get(option)) is not None:
        return value
    default = str(described.get("default") or "")
    if default.lower() in _SWITCHES:
        return _SWITCHES[default.lower()]
    try:
        return f"{float(default) + 1:g}"
    except ValueError:
        return None
