"""The rows of the sections of Airflow's components, for every supported version: data without logic.

Most of their options stay on the host. Those that the code of tasks reads nevertheless travel.
"""

from __future__ import annotations

from typing import Final

from modalflow.airflow_home.rules import reasons
from modalflow.airflow_home.rules.rule import Group, Place, Rule, section

_CERTIFICATE: Final = (
    "It is a file on the Airflow host. For a file in your image, set its variable in `[modal_executor] worker_env`."
)

COMPONENT_RULES: Final[tuple[Rule, ...]] = (
    *section(
        "database",
        Group(
            Place.NEVER,
            reasons.DATABASE_ACCESS,
            "sql_alchemy_conn sql_alchemy_conn_async:3.1- sql_alchemy_engine_args",
        ),
        Group(
            Place.HOST,
            reasons.DATABASE,
            """alembic_ini_file_path sql_engine_encoding sql_engine_collation_for_ids sql_alchemy_pool_enabled
            sql_alchemy_pool_size sql_alchemy_max_overflow sql_alchemy_pool_recycle sql_alchemy_pool_pre_ping
            sql_alchemy_schema sql_alchemy_connect_args sql_alchemy_connect_args_async:3.1-
            sql_alchemy_session_maker max_db_retries check_migrations external_db_managers migration_batch_size *""",
        ),
    ),
    *section(
        "api",
        Group(
            Place.TRAVELS,
            "Links in tasks, e-mails and notifications begin with it.",
            "base_url",
        ),
        Group(
            Place.TRAVELS, "Workers check the certificate of the API server with it.", "client_use_public_certs:3.3-"
        ),
        Group(Place.HOST, _CERTIFICATE, "ssl_cert ssl_ca_file:3.3- client_ssl_cert:3.2- client_ssl_key:3.2-"),
        Group(Place.NEVER, reasons.SIGNING_KEY, "secret_key"),
        Group(
            Place.HOST,
            reasons.API_SERVER,
            """enable_swagger_ui expose_config expose_stacktrace host port workers worker_timeout access_logfile:-3.0
            ssl_key ssl_cert_reqs:3.3- ssl_ciphers:3.4- maximum_page_limit fallback_page_limit
            access_control_allow_headers access_control_allow_methods access_control_allow_origins
            access_control_allow_origin_regex:3.4- enable_xcom_deserialize_support:-3.0 instance_name:3.1-
            log_config:3.1- grid_view_sorting_order:3.1- log_fetch_timeout_sec:3.1- hide_paused_dags_by_default:3.1-
            page_size:3.1-3.1 default_wrap:3.1- auto_refresh_interval:3.1- require_confirmation_dag_change:3.1-
            theme:3.2- dag_cache_size:3.2- dag_cache_ttl:3.2- server_type:3.2- worker_refresh_interval:3.2-
            worker_refresh_batch_size:3.2- log_stream_buffer_size:3.2- regexp_query_timeout:3.4- *""",
        ),
    ),
    *section(
        "api_auth",
        Group(Place.NEVER, reasons.SIGNING_KEY, "jwt_secret"),
        Group(
            Place.HOST,
            "The scheduler and the API server sign and check tokens with it. A workload carries its own token.",
            """jwt_audience jwt_expiration_time jwt_cli_expiration_time jwt_private_key_path jwt_algorithm jwt_kid
            trusted_jwks_url jwt_issuer jwt_leeway *""",
        ),
    ),
    *section(
        "execution_api",
        Group(
            Place.HOST,
            "The scheduler and the API server sign and check the tokens of workloads with it.",
            "jwt_expiration_time jwt_audience",
        ),
        Group(Place.HOST, reasons.API_SERVER, "otel_trace_propagation:3.3-"),
    ),
    *section(
        "webserver",
        Group(
            Place.HOST,
            reasons.API_SERVER,
            """grid_view_sorting_order:-3.0 log_fetch_timeout_sec:-3.0 hide_paused_dags_by_default:-3.0 page_size:-3.0
            default_wrap:-3.0 instance_name:-3.0 instance_name_has_markup:-3.0 auto_refresh_interval:-3.0
            warn_deployment_exposure:-3.0 audit_view_excluded_events:-3.0 audit_view_included_events:-3.0
            require_confirmation_dag_change:-3.0 *""",
        ),
    ),
    *section(
        "scheduler",
        Group(
            Place.TRAVELS,
            reasons.DAG_DEFAULTS,
            """catchup_by_default create_cron_data_intervals create_delta_data_intervals
            ignore_first_depends_on_past_by_default use_job_schedule allowed_run_id_pattern batch_asset_events:3.4-""",
        ),
        Group(
            Place.TRAVELS,
            "A worker knows from it how long its heartbeats may fail.",
            "task_instance_heartbeat_timeout",
        ),
        Group(
            Place.HOST,
            reasons.SCHEDULER,
            """job_heartbeat_sec scheduler_heartbeat_sec task_instance_heartbeat_sec num_runs only_idle:3.2-
            scheduler_idle_sleep_time parsing_cleanup_interval pool_metrics_interval running_metrics_interval:-3.1
            ti_metrics_interval:3.2- dagrun_metrics_interval:3.2- dagrun_metrics_per_dag_id:3.4-
            scheduler_health_check_threshold enable_health_check scheduler_health_check_server_host
            scheduler_health_check_server_port orphaned_tasks_check_interval
            task_instance_heartbeat_timeout_detection_interval max_tis_per_query use_row_level_locking
            max_dagruns_to_create_per_loop max_dagruns_per_loop_to_schedule dag_stale_not_seen_duration:-3.0
            trigger_timeout_check_interval task_queued_timeout task_queued_timeout_check_interval enable_tracemalloc
            partition_mapper_max_downstream_keys:3.3- dag_cache_size:3.4- dag_cache_ttl:3.4- *""",
        ),
    ),
    *section(
        "connection_test",
        Group(Place.HOST, reasons.SCHEDULER, "timeout:3.3- max_concurrency:3.3- reaper_interval:3.3-"),
    ),
    *section(
        "triggerer",
        Group(Place.TRAVELS, "A task that defers hands its queue to the trigger if it is set.", "queues_enabled:3.2-"),
        Group(
            Place.HOST,
            reasons.TRIGGERER,
            """capacity job_heartbeat_sec triggerer_health_check_threshold runner_health_check_threshold:3.2-
            max_trigger_to_select_per_loop:3.2- blocked_main_thread_warning_threshold:3.3- on_kill_timeout:3.3-
            shared_stream_subscriber_queue_size:3.3- shared_stream_ack_timeout:3.3-
            shared_stream_cohort_grace_period:3.3- unreferenced_triggers_cleanup_batch_size:3.4- *""",
        ),
    ),
    *section(
        "dag_processor",
        Group(Place.WORKER, reasons.WITH_WORKLOAD, "dag_bundle_config_list"),
        Group(Place.WORKER, "A container has a folder of its own.", "dag_bundle_storage_path"),
        Group(Place.TRAVELS, reasons.DAG_DEFAULTS, "disable_bundle_versioning"),
        Group(
            Place.TRAVELS,
            reasons.PARSING,
            "dag_importer_configs:3.4-",
        ),
        Group(
            Place.HOST,
            reasons.DAG_PROCESSOR,
            """refresh_interval parsing_processes file_parsing_sort_mode max_callbacks_per_loop
            min_file_process_interval stale_dag_threshold dag_file_processor_timeout print_stats_interval
            bundle_refresh_check_interval stale_bundle_cleanup_interval stale_bundle_cleanup_age_threshold
            stale_bundle_cleanup_min_versions parsing_pre_import_modules health_check_threshold:3.2-
            dag_version_inflation_check_level:3.2- *""",
        ),
    ),
    *section(
        "profiling",
        Group(
            Place.HOST,
            "It is about the scheduler, the API server, the DAG processor and the triggerer.",
            "memray_trace_components:3.2- memray_detailed_tracing:3.3-",
        ),
    ),
)
