"""The rows of the options of Airflow's providers: data without logic.

A section that belongs to one component as a whole, such as another executor, has one row. Options of providers without
a row travel, as a section of the user's own does.
"""

from __future__ import annotations

from typing import Final

from modalflow.airflow_home.rules import reasons
from modalflow.airflow_home.rules.rule import Group, Place, Rule, section

PROVIDER_RULES: Final[tuple[Rule, ...]] = (
    *section(
        "modal_executor",
        Group(
            Place.HOST,
            "The executor reads it on the Airflow host, and passes on what a container needs.",
            "*",
        ),
    ),
    *section(
        "common.io",
        Group(
            Place.TRAVELS,
            "The XCom backend on object storage reads it in tasks. The storage must be within reach of containers.",
            "xcom_objectstorage_path xcom_objectstorage_threshold xcom_objectstorage_compression",
        ),
        Group(
            Place.TRAVELS,
            "The state store on object storage reads it in tasks. The storage must be within reach of containers.",
            "state_store_objectstorage_path state_store_objectstorage_threshold state_store_objectstorage_compression",
        ),
    ),
    *section("standard", Group(Place.TRAVELS, reasons.HOOKS, "venv_install_method")),
    *section(
        "common.ai", Group(Place.TRAVELS, reasons.HOOKS, "durable_cache_path otel_export_enabled capture_content")
    ),
    *section("imap", Group(Place.TRAVELS, reasons.HOOKS, "ssl_context")),
    *section(
        "providers.jdbc", Group(Place.TRAVELS, reasons.HOOKS, "allow_driver_path_in_extra allow_driver_class_in_extra")
    ),
    *section("snowflake", Group(Place.TRAVELS, reasons.HOOKS, "azure_oauth_scope")),
    *section("yandex", Group(Place.TRAVELS, reasons.HOOKS, "sdk_user_agent_prefix")),
    *section("hive", Group(Place.TRAVELS, reasons.HOOKS, "default_hive_mapred_queue mapred_job_name_template")),
    *section("apache_kafka", Group(Place.TRAVELS, reasons.HOOKS, "callback_allowlist")),
    *section(
        "kafka_event_producer",
        Group(
            Place.TRAVELS,
            reasons.LISTENER,
            """dag_run_events_enabled task_instance_events_enabled kafka_config_id topic source dag_run_dag_id_allowlist
            dag_run_dag_id_denylist task_instance_dag_id_allowlist task_instance_dag_id_denylist
            task_instance_task_id_allowlist task_instance_task_id_denylist topic_check_timeout
            topic_check_retry_interval""",
        ),
    ),
    *section(
        "openlineage",
        Group(
            Place.TRAVELS,
            reasons.LISTENER,
            """config_conn_id custom_run_facets dag_state_change_process_pool_size debug_mode disable_source_code
            disabled disabled_for_operators emission_policy execution_timeout execute_in_thread extractors
            include_full_task_info namespace selective_enable spark_inject_parent_job_info
            spark_inject_transport_info""",
        ),
        Group(Place.TRAVELS, f"{reasons.LISTENER} The image must have the file at this path.", "config_path"),
        Group(Place.SEALED, f"{reasons.LISTENER} It can hold an API key.", "transport"),
    ),
    *section(
        "informatica",
        Group(
            Place.TRAVELS,
            reasons.LISTENER,
            "listener_disabled default_conn_id auto_lineage_enabled disabled_for_operators request_timeout",
        ),
    ),
    *section(
        "atlas",
        Group(Place.TRAVELS, "A lineage backend reads it in tasks.", "sasl_enabled host port username"),
        Group(Place.SEALED, "A lineage backend reads it in tasks.", "password"),
    ),
    *section(
        "aws",
        Group(Place.TRAVELS, reasons.HOOKS, "session_factory"),
        Group(Place.TRAVELS, reasons.REMOTE_LOGS, "cloudwatch_task_handler_json_serializer s3_task_handler_acl_policy"),
    ),
    *section("azure_remote_logging", Group(Place.TRAVELS, reasons.REMOTE_LOGS, "remote_wasb_log_container")),
    *section(
        "elasticsearch",
        Group(
            Place.TRAVELS,
            reasons.REMOTE_LOGS,
            """host log_id_template end_of_log_mark frontend write_stdout write_to_es target_index json_format
            json_fields host_field offset_field index_patterns index_patterns_callable max_lines_per_page
            es_compat_with""",
        ),
    ),
    *section("elasticsearch_configs", Group(Place.TRAVELS, reasons.REMOTE_LOGS, "http_compress use_ssl verify_certs")),
    *section(
        "opensearch",
        Group(
            Place.TRAVELS,
            reasons.REMOTE_LOGS,
            """host port log_id_template end_of_log_mark write_stdout write_to_os target_index json_format json_fields
            host_field offset_field index_patterns index_patterns_callable""",
        ),
        Group(Place.SEALED, reasons.REMOTE_LOGS, "username password"),
    ),
    *section(
        "opensearch_configs",
        Group(
            Place.TRAVELS,
            reasons.REMOTE_LOGS,
            "http_compress use_ssl verify_certs ssl_assert_hostname ssl_show_warn ca_certs",
        ),
    ),
    *section(
        "celery",
        Group(
            Place.NEVER,
            "It gives access to the broker, to the results or to Flower. A task could start work of others with it.",
            "broker_url result_backend flower_basic_auth",
        ),
        Group(Place.HOST, reasons.OTHER_EXECUTOR, "*"),
    ),
    *section(
        "celery_broker_transport_options",
        Group(Place.NEVER, "It gives access to the broker.", "sentinel_kwargs"),
        Group(Place.HOST, reasons.OTHER_EXECUTOR, "*"),
    ),
    *section(
        "celery_result_backend_transport_options",
        Group(Place.NEVER, "It gives access to the results.", "sentinel_kwargs"),
        Group(Place.HOST, reasons.OTHER_EXECUTOR, "*"),
    ),
    *section("celery_kubernetes_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("local_kubernetes_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section(
        "kubernetes_executor",
        Group(
            Place.TRAVELS,
            "The hook and the pod operator of Kubernetes read it in tasks.",
            "enable_tcp_keepalive tcp_keep_idle tcp_keep_intvl tcp_keep_cnt logs_task_metadata",
        ),
        Group(Place.HOST, reasons.OTHER_EXECUTOR, "*"),
    ),
    *section("aws_batch_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("aws_ecs_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("aws_eks_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("aws_lambda_executor", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("edge", Group(Place.HOST, reasons.OTHER_EXECUTOR, "*")),
    *section("aws_auth_manager", Group(Place.HOST, reasons.API_SERVER, "*")),
    *section("fab", Group(Place.HOST, reasons.API_SERVER, "*")),
    *section(
        "keycloak_auth_manager",
        Group(Place.NEVER, "With this secret, a task could act as Airflow in Keycloak.", "client_secret"),
        Group(Place.HOST, reasons.API_SERVER, "*"),
    ),
)
