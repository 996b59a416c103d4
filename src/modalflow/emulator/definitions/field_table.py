"""The table of every field of the definitions of functions, classes, images, apps and storage.

Owns the rows, by message of Modal's protocol. A field of a newer SDK has no row, and a test fails until it has one.
Sandboxes have no rows: each RPC that would create one is refused (rpc/unimplemented.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from modalflow.emulator.definitions.effects import (
    Effect,
    InParts,
    Internal,
    Reader,
    Refused,
    WithoutEffect,
    handed_on,
    internal,
    used,
)

#: The requests that define something. The rows of their fields lead to all others.
REQUESTS: Final = (
    "AppCreateRequest",
    "AppGetOrCreateRequest",
    "AppPublishRequest",
    "ClassCreateRequest",
    "DictGetOrCreateRequest",
    "FunctionBindParamsRequest",
    "FunctionCreateRequest",
    "FunctionPrecreateRequest",
    "FunctionUpdateSchedulingParamsRequest",
    "ImageGetOrCreateRequest",
    "MountGetOrCreateRequest",
    "QueueGetOrCreateRequest",
    "SecretGetOrCreateRequest",
    "VolumeGetOrCreateRequest",
)

#: Message → the message whose rows hold for its fields as well.
SAME_AS: Final[Mapping[str, str]] = {
    # The SDK fills both from one definition (_functions.py, `function_data`).
    "FunctionData": "Function",
    # Each option replaces a field of the function (`apply_options`), and the result has the lines.
    "FunctionOptions": "Function",
}

_FUNCTION: Final = "functions/function.py"
_FUNCTIONS: Final = "functions/functions.py"
_LAUNCHER: Final = "containers/launch/launcher.py"
_CONTAINER: Final = "containers/container.py"
_IMAGES: Final = "images/images.py"

_SERVERS: Final = Refused("servers: run your server outside of Modal")
_WEB: Final = Refused("web endpoints: call the function by remote() or spawn()")
_CLUSTERS: Final = Refused("clustered functions: deploy without `clustered`", (1,))
_NETWORK: Final = Refused("containers with a limited network: deploy without limits on it")
_NAME: Final = "deployment_name environment_name object_creation_type"
_OLD_SDK: Final = Refused("definitions of this old kind: update `modal`, and deploy again")
_BY_MODAL: Final = "Modal's server sets it in its answers; no client does"
_SNAPSHOT: Final = WithoutEffect(
    "enable_memory_snapshot",
    "asks for memory snapshots and starts without them: each container imports its modules again",
    has_effect_in_gvisor=True,
)
_GPU_SNAPSHOT: Final = WithoutEffect(
    "enable_gpu_snapshot", "asks for snapshots of GPU memory and starts without them: none are taken here"
)
_TASK_TEMPLATES: Final = WithoutEffect("task templates", "asks for task templates and runs without them")
_RUNTIME: Final = WithoutEffect(
    "MODAL_FUNCTION_RUNTIME",
    "asks for the runtime {}, and `--isolation` of the control plane chooses it here",
    ("gvisor",),
)
_RUNTIME_DEBUG: Final = WithoutEffect(
    "MODAL_FUNCTION_RUNTIME_DEBUG", "asks for the debug output of Modal's runtime and runs without it"
)

FIELDS: Final[Mapping[str, Mapping[str, Effect]]] = {
    "Function": {
        **used(_LAUNCHER, "image_id mount_ids secret_ids volume_mounts cloud_bucket_mounts object_dependencies"),
        **used(_FUNCTIONS, "function_name"),
        **used(
            _FUNCTION,
            "function_type is_method concurrency_limit task_idle_timeout_secs warm_pool_size autoscaler_settings "
            "_experimental_buffer_containers method_definitions",
        ),
        **used(
            _FUNCTION,
            "class_parameter_info function_schema supported_input_formats supported_output_formats",
            whole=True,
        ),
        **used(
            _CONTAINER,
            "timeout_secs startup_timeout_secs max_concurrent_inputs target_concurrent_inputs batch_max_size "
            "max_inputs single_use_containers",
        ),
        **used("calls/calls.py", "module_name"),
        **used("containers/placement.py", "resources"),
        **used("containers/outcomes.py", "retry_policy"),
        **used("faults/container_faults.py", "scheduler_placement"),
        **handed_on(
            Reader.CONTAINER,
            "definition_type function_serialized class_serialized is_class implementation_name batch_linger_ms "
            "pty_info app_name use_method_name",
        ),
        "network_access": InParts(),
        "proxy_id": Refused("proxies: deploy without `proxy=`; containers here have the addresses of this machine"),
        "shared_volume_mounts": Refused("network file systems: use a Volume"),
        "s3_mounts": Refused("mounts of the old kind: use a CloudBucketMount"),
        "schedule": Refused("schedules: deploy without `schedule=` and call the function from your own scheduler"),
        "block_network": Refused("containers without a network: deploy without `block_network=True`"),
        "untrusted": Refused(
            "containers without access to Modal's API: deploy without `restrict_modal_access=True`",
        ),
        "is_sessioned": Refused("servers with sessions: run your server outside of Modal"),
        **dict.fromkeys(("is_server", "http_config"), _SERVERS),
        "webhook_config": _WEB,
        **dict.fromkeys(("_experimental_group_size", "_experimental_fabric_size"), _CLUSTERS),
        "use_function_id": _OLD_SDK,
        "i6pn_enabled": WithoutEffect(
            "i6pn", "asks for i6pn and runs without it: containers here have no private addresses"
        ),
        **dict.fromkeys(("checkpointing_enabled", "is_checkpointing_function", "is_auto_snapshot"), _SNAPSHOT),
        **dict.fromkeys(("_experimental_enable_gpu_snapshot", "enable_gpu_snapshot"), _GPU_SNAPSHOT),
        **dict.fromkeys(
            ("cloud_provider_str", "cloud_provider"),
            WithoutEffect("cloud", "asks for cloud={} and runs on this machine"),
        ),
        "routing_region": WithoutEffect("routing_region", "asks for routing_region={}: calls reach it on this machine"),
        "rate_limit": WithoutEffect("rate limit", "asks for a rate limit and has none"),
        "_experimental_custom_scaling": WithoutEffect(
            "custom scaling", "asks for custom scaling and is scaled like any other function"
        ),
        **dict.fromkeys(("_experimental_task_templates_enabled", "_experimental_task_templates"), _TASK_TEMPLATES),
        "_experimental_proxy_ip": WithoutEffect(
            "proxy address", "asks for the address {} and has those of this machine"
        ),
        "experimental_options": WithoutEffect(
            "experimental_options", "has the experimental option {}, which has no effect here"
        ),
        "worker_id": WithoutEffect("MODAL_WORKER_ID", "asks for the worker {} and runs on this machine"),
        "runtime": _RUNTIME,
        "runtime_debug": _RUNTIME_DEBUG,
        "runtime_perf_record": WithoutEffect(
            "MODAL_RUNTIME_PERF_RECORD", "asks for a profile of Modal's runtime and runs without it"
        ),
        "snapshot_debug": WithoutEffect(
            "MODAL_SNAPSHOT_DEBUG", "asks for the debugging of memory snapshots and runs without it"
        ),
        **internal(
            _BY_MODAL,
            "web_url web_url_info custom_domain_info flash_service_urls flash_service_label checkpoint",
        ),
        "is_builder_function": Internal("the image to build names its function"),
        "method_definitions_set": Internal("there are method definitions, or there are none"),
        "mount_client_dependencies": Internal("containers have the `modal` of this machine, with its dependencies"),
        "_experimental_concurrent_cancellations": Internal("every supported runtime is able to cancel single inputs"),
    },
    "FunctionData": used(_FUNCTIONS, "ranked_functions"),
    "FunctionData.RankedFunction": used(_FUNCTIONS, "rank function"),
    "FunctionOptions": {
        **used(_FUNCTION, "replace_secret_ids replace_volume_mounts replace_cloud_bucket_mounts buffer_containers"),
        **used(_FUNCTIONS, "pinned_app_version"),
        "warm_pool_size": Refused(
            "`min_containers` among the options of a call: set it in the function's decorator, or use "
            "`autoscaler.update()`"
        ),
    },
    "AutoscalerSettings": {
        **used(_FUNCTION, "min_containers max_containers buffer_containers scaledown_window"),
        "scaleup_window": WithoutEffect("scaleup_window", "asks for scaleup_window={} and gets its containers at once"),
        **dict.fromkeys(("target_concurrency", "target_concurrency_float"), _SERVERS),
        **dict.fromkeys(
            ("scaledown_rate_limit", "max_scaledowns_per_minute"),
            WithoutEffect("limited rate of scale-downs", "asks for a limited rate of scale-downs and has none"),
        ),
    },
    "Resources": {
        **used("containers/capacity.py", "memory_mb milli_cpu gpu_config"),
        **used("containers/launch/memory_watch.py", "memory_mb_max"),
        "milli_cpu_max": WithoutEffect(
            "cpu=(request, limit)", "asks for a limit of {} millicores and may use all cores of this machine"
        ),
        "ephemeral_disk_mb": WithoutEffect(
            "ephemeral_disk", "asks for ephemeral_disk={} MiB and has the free space of this machine"
        ),
        "rdma": WithoutEffect("rdma", "asks for RDMA and runs without it"),
        "skip_num_threads_env_vars": Internal("it is about variables of Modal's machines"),
    },
    "GPUConfig": used("containers/capacity.py", "type count gpu_type"),
    "SchedulerPlacement": {
        **used("faults/container_faults.py", "nonpreemptible"),
        "regions": WithoutEffect("region", "asks for region={} and runs on this machine"),
        "_zone": WithoutEffect("zone", "asks for zone {} and runs on this machine"),
        "_instance_types": WithoutEffect("instance types", "asks for instance types {} and runs on this machine"),
        "_lifecycle": WithoutEffect("spot", "asks for {} instances and runs on this machine"),
    },
    "FunctionRetryPolicy": used("containers/outcomes.py", "backoff_coefficient initial_delay_ms max_delay_ms retries"),
    "MethodDefinition": {
        **used(_FUNCTION, "function_name function_type"),
        **used(_FUNCTION, "function_schema supported_input_formats supported_output_formats", whole=True),
        "webhook_config": _WEB,
        **internal(_BY_MODAL, "web_url web_url_info custom_domain_info"),
    },
    "NetworkAccess": {
        # NETWORK_ACCESS_TYPE_OPEN, which SDKs before 1.6 do not know.
        "network_access_type": Refused(_NETWORK.what, (1,)),
        **dict.fromkeys(("allowed_cidrs", "allowed_domains"), _NETWORK),
    },
    "ObjectDependency": used(_LAUNCHER, "object_id"),
    "VolumeMount": used(_LAUNCHER, "volume_id mount_path allow_background_commits read_only sub_path"),
    "CloudBucketMount": {
        **used("services/cloud_buckets.py", "bucket_name key_prefix"),
        **used(_LAUNCHER, "mount_path read_only"),
        "bucket_endpoint_url": WithoutEffect("bucket_endpoint_url", "has a bucket at {}, which is a folder here"),
        **dict.fromkeys(
            ("credentials_secret_id", "oidc_auth_role_arn"),
            WithoutEffect(
                "secret, oidc_auth_role_arn of a bucket", "has credentials for a bucket, which is a folder here"
            ),
        ),
        "requester_pays": WithoutEffect("requester_pays", "pays for requests to a bucket, which is a folder here"),
        "force_path_style": WithoutEffect(
            "force_path_style", "asks for path-style addresses of a bucket, which is a folder here"
        ),
        **dict.fromkeys(
            ("metadata_ttl_type", "metadata_ttl_seconds"),
            WithoutEffect("lifetime of a bucket's metadata", "keeps metadata of a bucket, which is a folder here"),
        ),
        "bucket_type": Internal("it follows from the endpoint"),
    },
    "FunctionCreateRequest": {
        **used(_FUNCTIONS, "app_id existing_function_id function function_data"),
        "schedule": Refused("schedules: deploy without `schedule=` and call the function from your own scheduler"),
    },
    "FunctionPrecreateRequest": {
        **used(_FUNCTIONS, "app_id function_name existing_function_id function_type method_definitions"),
        **used(_FUNCTIONS, "function_schema supported_input_formats supported_output_formats", whole=True),
        "webhook_config": _WEB,
        "use_function_id": _OLD_SDK,
        "use_method_name": _OLD_SDK,
    },
    "FunctionBindParamsRequest": {
        **used(_FUNCTIONS, "function_id serialized_params function_options"),
        "auth_secret": Refused("parameters with a secret of their own: bind them without"),
        "environment_name": Internal("the id of a function is unique"),
    },
    "FunctionUpdateSchedulingParamsRequest": {
        **used("containers/runtime.py", "function_id settings"),
        "warm_pool_size_override": _OLD_SDK,
    },
    "ClassCreateRequest": {
        **used(_FUNCTIONS, "app_id existing_class_id"),
        "methods": _OLD_SDK,
        "only_class_function": Internal("each class is one function here"),
    },
    "AppCreateRequest": {
        **used("apps/app_service.py", "description environment_name app_state tags"),
        "client_id": Internal("only old clients have an id"),
    },
    "AppGetOrCreateRequest": used("apps/app_service.py", "app_name environment_name object_creation_type"),
    "AppPublishRequest": {
        **used("apps/app_service.py", "app_id name deployment_tag app_state function_ids class_ids tags staged"),
        **used("apps/app_service.py", "commit_info", whole=True),
        "rollback_version": Refused("rollbacks by AppPublish: use `modal app rollback`"),
        "definition_ids": Internal("a deployment has the definitions that it created"),
        "client_version": Internal("the metadata of the request has it"),
        "deployment_type": Internal("it follows from the RPC"),
    },
    "ImageGetOrCreateRequest": {
        **used(_IMAGES, "image build_function_id force_build namespace builder_version ignore_cache"),
        "app_id": Internal("an image is shared by all apps"),
        "existing_image_id": Internal("an image is found by its definition"),
        "allow_global_deployment": Internal("only Modal's own images are global"),
    },
    "Image": {
        **used(_IMAGES, "base_images context_files context_mount_id secret_ids build_function"),
        **used("images/recipe.py", "dockerfile_commands build_args volume_mounts"),
        "gpu_config": WithoutEffect("gpu of a build step", "asks for a GPU for its build and is built without"),
        "image_registry_config": WithoutEffect(
            "registry secret", "has credentials for a registry, and no registry is asked here"
        ),
        "arch": WithoutEffect("arch", "asks for the architecture {} and is built for that of this machine"),
        "runtime": _RUNTIME,
        "runtime_debug": _RUNTIME_DEBUG,
        **dict.fromkeys(("build_function_def", "build_function_globals"), _OLD_SDK),
        "version": Internal("the request has the version of the builder"),
    },
    "BaseImage": used(_IMAGES, "image_id docker_tag"),
    "ImageContextFile": used(_IMAGES, "filename data"),
    "BuildFunction": {
        **used(_IMAGES, "input", whole=True),
        **internal("it is part of the identity of the layer: a change builds it again", "definition globals"),
    },
    "DictGetOrCreateRequest": {**used("services/dicts.py", _NAME), **used("services/dicts.py", "data", whole=True)},
    "QueueGetOrCreateRequest": used("queues/queues.py", _NAME),
    "SecretGetOrCreateRequest": {
        **used("services/secrets.py", f"{_NAME} env_dict required_keys"),
        "app_id": Internal("a Secret without a name belongs to no app here"),
    },
    "VolumeGetOrCreateRequest": {
        **used("volumes/volumes.py", f"{_NAME} version"),
        "create_options": InParts(),
        "app_id": Internal("a Volume without a name belongs to no app here"),
    },
    "VolumeCreateOptions": {
        "experimental_options": Refused("experimental options of Volumes: create it without `experimental_options=`"),
    },
    "MountGetOrCreateRequest": {
        **used("services/mounts.py", f"{_NAME} files namespace"),
        "app_id": Internal("a mount belongs to no app here"),
        "earliest_checked_at": Internal("it is for the statistics of Modal"),
    },
    "MountFile": {
        **used("services/mounts.py", "filename sha256_hex mode"),
        "size": Internal("the stored file has its size"),
    },
}
