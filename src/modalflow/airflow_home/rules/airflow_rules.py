"""The rows of the sections that tasks read in general, for every supported version of Airflow: data without logic.

Each option was judged by the code that reads it. If a task, a callback or a connection test can get to that code, the
setting travels.
"""

from __future__ import annotations

from typing import Final

from modalflow.airflow_home.rules import reasons
from modalflow.airflow_home.rules.rule import Group, Place, Rule, section

AIRFLOW_RULES: Final[tuple[Rule, ...]] = (
    *section(
        "core",
        Group(
            Place.TRAVELS,
            reasons.DAG_DEFAULTS,
            """default_timezone max_active_tasks_per_dag max_active_runs_per_dag dags_are_paused_at_creation
            max_consecutive_failed_dag_runs_per_dag default_task_retries default_task_retry_delay
            max_task_retry_delay default_task_weight_rule default_task_execution_timeout
            dag_run_conf_overrides_params rerun_with_latest_version:3.3-""",
        ),
        Group(
            Place.TRAVELS,
            reasons.PARSING,
            """dagbag_import_timeout dagbag_import_error_tracebacks dagbag_import_error_traceback_depth
            dag_discovery_safe_mode dag_ignore_file_syntax might_contain_dag_callable allow_double_dot_in_ids:3.3-""",
        ),
        Group(
            Place.TRAVELS,
            "Tasks read and write XComs with it. Its class must be in your image, or in a file that is shipped.",
            "xcom_backend",
        ),
        Group(
            Place.TRAVELS,
            "Airflow reads it in the process of a task: to run it, to render its templates, to deserialize its XComs.",
            """default_impersonation security donot_pickle:-3.0 allowed_deserialization_classes
            allowed_deserialization_classes_regexp killed_task_cleanup_time task_success_overtime
            max_templated_field_length max_num_rendered_ti_fields_per_task:-3.1
            num_dag_runs_to_retain_rendered_fields:3.2- lazy_load_plugins lazy_discover_providers""",
        ),
        Group(
            Place.TRAVELS,
            "Containers mask the same names in logs and rendered fields as the Airflow host.",
            "hide_sensitive_var_conn_fields sensitive_var_conn_names",
        ),
        Group(
            Place.WORKER,
            reasons.WITH_WORKLOAD,
            "executor multi_team:3.2- execution_api_server_url",
        ),
        Group(
            Place.WORKER,
            "A container has folders of its own. The files below the host's folder are shipped to it.",
            "dags_folder plugins_folder",
        ),
        Group(
            Place.WORKER,
            "The name of a container must identify it, for Airflow and for you.",
            "hostname_callable",
        ),
        Group(
            Place.WORKER,
            "It is True for tasks of an example DAG alone: a search for examples delays every other task.",
            "load_examples",
        ),
        Group(
            Place.WORKER,
            "The worker forks each task from a process that has imported Airflow.",
            "execute_tasks_new_python_interpreter",
        ),
        Group(
            Place.NEVER,
            "With this key, a task could decrypt every connection and variable in the database.",
            "fernet_key",
        ),
        Group(Place.NEVER, reasons.SIGNING_KEY, "internal_api_secret_key:-3.0"),
        # A line that is left over from Airflow 2.
        Group(Place.NEVER, reasons.DATABASE_ACCESS, "sql_alchemy_conn:-2.10"),
        Group(
            Place.NEVER,
            "Only the API server uses the asset manager, and its arguments can be secrets.",
            "asset_manager_kwargs",
        ),
        Group(
            Place.HOST,
            reasons.API_SERVER,
            """auth_manager simple_auth_manager_users simple_auth_manager_all_admins simple_auth_manager_passwords_file
            test_connection max_map_length asset_manager_class team_name_cache_ttl:3.3-""",
        ),
        Group(Place.HOST, reasons.SCHEDULER, "parallelism default_pool_task_slot_count"),
        Group(
            Place.HOST,
            "It is about processes that run on the Airflow host.",
            "mp_start_method mp_forkserver_preload:3.3- daemon_umask",
        ),
        Group(
            Place.HOST,
            "It replaces the configuration of one Airflow process by a configuration for tests.",
            "unit_test_mode",
        ),
        Group(
            Place.HOST,
            reasons.DATABASE,
            """min_serialized_dag_update_interval min_serialized_dag_fetch_interval:-3.1 compress_serialized_dags
            database_access_isolation:-3.0 internal_api_url:-3.0""",
        ),
    ),
    *section(
        "logging",
        Group(
            Place.TRAVELS,
            "It shapes the lines that tasks log.",
            """logging_level namespace_levels:3.2- log_format simple_log_format colored_console_log
            colored_log_format:-3.0 colored_formatter_class:-3.0 log_formatter_class callsite_parameters:3.1-
            task_log_prefix_template extra_logger_names json_logs:3.2- log_timestamp_format:3.2-
            task_logs_to_stdout:3.4-""",
        ),
        Group(
            Place.TRAVELS,
            "Containers mask the same values in logs as the Airflow host.",
            "secret_mask_adapter min_length_masked_secret",
        ),
        Group(
            Place.TRAVELS,
            "Airflow creates log folders and files in containers with it.",
            "file_task_handler_new_folder_permissions file_task_handler_new_file_permissions",
        ),
        Group(
            Place.TRAVELS,
            reasons.OWN_REMOTE_LOGS,
            "remote_log_conn_id remote_base_log_folder delete_local_logs encrypt_s3_logs",
        ),
        Group(
            Place.TRAVELS,
            "With a remote logging of your own, containers upload their logs with it. The image must have the file at"
            " this path.",
            "google_key_path",
        ),
        Group(
            Place.SEALED,
            "With a remote logging of your own, containers upload their logs with it. It can hold credentials.",
            "remote_task_handler_kwargs",
        ),
        Group(
            Place.TRAVELS,
            "Airflow loads it in containers as well. modalflow's own configuration stays on the host: containers write"
            " to the logs Volume without it.",
            "logging_config_class",
        ),
        Group(
            Place.WORKER,
            "Every workload carries it: False, unless your logs go to a storage of your own.",
            "remote_logging",
        ),
        Group(Place.WORKER, "The logs Volume has a folder of its own in containers.", "base_log_folder"),
        Group(Place.HOST, "The scheduler names the log file of each try with it.", "log_filename_template"),
        Group(
            Place.HOST,
            "It is about reading and showing logs, which the API server does.",
            """task_log_reader worker_log_server_port interleave_timestamp_parser color_log_error_keywords
            color_log_warning_keywords""",
        ),
        Group(Place.HOST, reasons.TRIGGERER, "trigger_log_server_port"),
        Group(
            Place.HOST,
            reasons.DAG_PROCESSOR,
            "dag_processor_log_target dag_processor_log_format dag_processor_child_process_log_directory",
        ),
        Group(
            Place.HOST,
            "It is about the logs of another component.",
            "celery_logging_level celery_stdout_stderr_separation fab_logging_level uvicorn_logging_level:3.2-",
        ),
    ),
    *section(
        "metrics",
        Group(
            Place.TRAVELS,
            "Tasks send metrics with it. The receiver must be within reach of containers: `localhost` is a container.",
            """metrics_allow_list metrics_block_list statsd_on statsd_host statsd_ipv6 statsd_port statsd_prefix
            stat_name_handler statsd_datadog_enabled statsd_datadog_tags statsd_datadog_metrics_tags
            statsd_custom_client_path statsd_disabled_tags statsd_influxdb_enabled statsd_socket_path:3.4- otel_on
            otel_host otel_port otel_prefix otel_interval_milliseconds otel_debugging_on otel_service
            otel_ssl_active legacy_names_on:3.2- dag_tags_in_metrics:3.4-""",
        ),
    ),
    *section(
        "traces",
        Group(
            Place.TRAVELS,
            "Tasks send their spans with it. The collector must be within reach of containers: `localhost` is the"
            " container.",
            """otel_on otel_host otel_port otel_service otel_debugging_on otel_ssl_active otel_debug_traces_on:3.1-
            task_runner_flush_timeout_milliseconds:3.2-""",
        ),
    ),
    *section(
        "secrets",
        Group(
            Place.TRAVELS,
            "Workers search it for connections and variables before they ask the API server, unless `[workers]"
            " secrets_backend` is set.",
            "backend",
        ),
        Group(Place.SEALED, "The arguments of the secrets backend can be secrets.", "backend_kwargs backend_kwarg__*"),
        Group(Place.TRAVELS, "Airflow reads it when it parses a DAG file.", "use_cache cache_ttl_seconds"),
    ),
    *section(
        "workers",
        Group(
            Place.TRAVELS,
            "It is made for workers. Its class must be in your image, or in a file that is shipped.",
            "secrets_backend state_store_backend:3.3-",
        ),
        Group(
            Place.SEALED,
            "The arguments of the secrets backend can be secrets.",
            "secrets_backend_kwargs secrets_backend_kwarg__*",
        ),
        Group(
            Place.TRAVELS,
            reasons.API_CLIENT,
            """execution_api_retries execution_api_retry_wait_min execution_api_retry_wait_max
            execution_api_timeout:3.1-""",
        ),
        Group(
            Place.TRAVELS,
            "It is made for workers.",
            """min_heartbeat_interval max_failed_heartbeats socket_cleanup_timeout missing_dag_retries:3.1-
            missing_dag_retry_delay:3.1-""",
        ),
    ),
    *section(
        "sdk",
        Group(
            Place.TRAVELS,
            "Workers start tasks in other languages with it. The image must have the program of the coordinator.",
            "coordinators:3.3- queue_to_coordinator:3.3- dag_bundle_to_coordinator:3.4-",
        ),
    ),
    *section(
        "lineage",
        Group(
            Place.TRAVELS,
            "Hooks and operators report the lineage of a task with it.",
            "backend:-3.1 max_assets_per_collector:3.2- max_extras_per_collector:3.2-",
        ),
    ),
    *section(
        "operators",
        Group(
            Place.TRAVELS,
            reasons.DAG_DEFAULTS,
            "default_owner default_deferrable default_cpus default_ram default_disk default_gpus default_queue",
        ),
    ),
    *section("sensors", Group(Place.TRAVELS, reasons.DAG_DEFAULTS, "default_timeout")),
    *section(
        "email",
        Group(
            Place.TRAVELS,
            reasons.EMAILS,
            "email_backend email_conn_id from_email ssl_context",
        ),
        Group(Place.TRAVELS, reasons.DAG_DEFAULTS, "default_email_on_retry default_email_on_failure"),
        Group(
            Place.TRAVELS,
            "Tasks and callbacks send e-mails with it. The image must have the file at this path; without it, Airflow"
            " uses its own text.",
            "subject_template html_content_template",
        ),
    ),
    *section(
        "smtp",
        Group(
            Place.TRAVELS,
            reasons.EMAILS,
            "smtp_host smtp_starttls smtp_ssl smtp_port smtp_mail_from smtp_timeout smtp_retry_limit",
        ),
    ),
    *section(
        "sentry",
        Group(Place.TRAVELS, "Tasks report their errors to Sentry with it.", "sentry_on before_send"),
        Group(Place.SEALED, "Tasks report their errors to Sentry with it. It holds a key.", "sentry_dsn"),
    ),
    *section(
        "callbacks",
        Group(Place.TRAVELS, "The process of a callback ends after this time.", "callback_execution_timeout:3.3-"),
    ),
    *section(
        "state_store",
        Group(
            Place.TRAVELS,
            "Tasks read it when they store state.",
            "clear_on_success:3.3- default_retention_days:3.3- max_value_storage_bytes:3.3-",
        ),
        Group(Place.HOST, reasons.API_SERVER, "backend:3.3- state_cleanup_batch_size:3.3-"),
    ),
    *section(
        "kerberos",
        Group(
            Place.TRAVELS,
            "Hooks authenticate with it.",
            "principal reinit_frequency forwardable include_ip include_renewal_lifetime:3.4-",
        ),
        Group(
            Place.HOST,
            "`airflow kerberos` keeps these files current on the Airflow host, and no such process is in containers.",
            "ccache kinit_path keytab",
        ),
    ),
)
