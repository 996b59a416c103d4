"""What is not emulated is refused with what the user did, or named in a line: nothing is ignored in silence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.functions import function, ignored_options
from modalflow.emulator.rpc import unimplemented
from modalflow.emulator.rpc.handlers import rpc_table
from tests.unit.emulator.target import Target


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def test_each_refusal_names_the_action_of_the_user(target: Target) -> None:
    """No RPC is refused with its name alone; the name is there for a report."""
    for name in sorted(set(rpc_table()) - target.plane.parts.front.handlers.implemented):
        assert any(name.startswith(beginning) for beginning in unimplemented.ACTIONS), f"{name}: which action is it?"
        assert target.send(name, target.request(name), as_container=False, patience=30.0) is Status.UNIMPLEMENTED
        assert "not supported by the local control plane yet" in target.said
        assert target.said.endswith(f"({name})")


def test_nothing_that_is_answered_is_called_unsupported(target: Target) -> None:
    """The table has no whole name of an RPC that some service answers."""
    assert not set(unimplemented.ACTIONS) & target.plane.parts.front.handlers.implemented


@pytest.mark.parametrize(
    ("rpc", "said"),
    [
        ("TaskGetCommandRouterAccess", "`modal container exec`"),
        ("SandboxCreateV2", "modal.Sandbox"),
        ("ProxyGet", "modal.Proxy"),
        ("SharedVolumeGetOrCreate", "modal.NetworkFileSystem"),
        ("OfANewerSdk", "The request of this version of Modal's SDK"),
    ],
)
def test_refusals(rpc: str, said: str) -> None:
    """In the words in which the user knows it."""
    assert said in unimplemented.refusal(rpc)


#: Fields that have their effect, or are about nothing that a user asks for.
EFFECTIVE = {
    "Function": """
        module_name function_name mount_ids image_id function_serialized definition_type function_type resources
        secret_ids webhook_config retry_policy concurrency_limit timeout_secs class_serialized task_idle_timeout_secs
        warm_pool_size web_url web_url_info app_name volume_mounts max_concurrent_inputs custom_domain_info
        is_builder_function is_method object_dependencies max_inputs cloud_bucket_mounts scheduler_placement is_class
        class_parameter_info batch_max_size batch_linger_ms _experimental_concurrent_cancellations
        target_concurrent_inputs _experimental_group_size _experimental_fabric_size _experimental_buffer_containers
        method_definitions method_definitions_set autoscaler_settings function_schema experimental_options
        mount_client_dependencies startup_timeout_secs supported_input_formats supported_output_formats
        implementation_name single_use_containers network_access pty_info
    """,
    # For those who work on Modal's runtime, or set by the server.
    "of no user": """
        runtime_debug runtime_perf_record snapshot_debug checkpoint flash_service_urls flash_service_label
        cloud_provider _experimental_task_templates
    """,
    # skip_num_threads_env_vars is about variables of Modal's machines.
    "Resources": "memory_mb milli_cpu gpu_config memory_mb_max milli_cpu_max skip_num_threads_env_vars",
    "SchedulerPlacement": "nonpreemptible",
    # The version, the runtime and the architecture are the control plane's own; registries are not asked.
    "Image": """
        base_images dockerfile_commands context_files version secret_ids context_mount_id gpu_config
        image_registry_config build_function_def build_function_globals runtime runtime_debug build_function build_args
        volume_mounts arch
    """,
}


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        (api_pb2.Function, {*ignored_options.OF_FUNCTION, *function._UNSUPPORTED}),
        (api_pb2.Resources, set(ignored_options.OF_RESOURCES)),
        (api_pb2.SchedulerPlacement, set(ignored_options.OF_PLACEMENT)),
        (api_pb2.Image, set()),
    ],
)
def test_no_field_is_ignored_in_silence(message: type[Message], lines: set[str]) -> None:
    """Each field of what the SDK sends has its effect, is refused, or has a line; a new one needs a decision."""
    known = lines | set(EFFECTIVE[message.DESCRIPTOR.name].split())
    if message is api_pb2.Function:
        known |= set(EFFECTIVE["of no user"].split())
    assert {field.name for field in message.DESCRIPTOR.fields} <= known


def definition(**fields: Any) -> api_pb2.Function:
    return api_pb2.Function(function_name="f", **fields)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (definition(i6pn_enabled=True), ["asks for i6pn and runs without it: containers here share the network"]),
        (definition(checkpointing_enabled=True, is_auto_snapshot=True), ["asks for memory snapshots"]),
        (definition(cloud_provider_str="aws"), ["asks for cloud=aws and runs on this machine"]),
        (
            definition(scheduler_placement=api_pb2.SchedulerPlacement(regions=["us-east", "eu"])),
            ["asks for region=us-east, eu and runs on this machine"],
        ),
        (
            definition(resources=api_pb2.Resources(ephemeral_disk_mb=524288)),
            ["asks for ephemeral_disk=524288 MiB and has the free space of this machine"],
        ),
        (
            definition(experimental_options={"vroom": "1", "enable_gpu_snapshot": "True"}),
            ["experimental option enable_gpu_snapshot=True, which has no effect", "experimental option vroom=1"],
        ),
        (definition(timeout_secs=5, scheduler_placement=api_pb2.SchedulerPlacement(nonpreemptible=True)), []),
    ],
)
def test_each_option_without_effect_has_a_line(asked: api_pb2.Function, said: list[str]) -> None:
    """One line each, and none for an option that was not given."""
    found = ignored_options.ignored_options(asked)
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_a_web_endpoint_is_refused_before_an_image_is_built(target: Target) -> None:
    """The SDK announces each function before it builds the images: the refusal comes there, and leaves nothing."""
    before = len(list(target.plane.parts.execution.functions))
    web = api_pb2.WebhookConfig(type=api_pb2.WEBHOOK_TYPE_FUNCTION)
    methods = {"m": api_pb2.MethodDefinition(function_name="C.m", webhook_config=web)}
    for asked in ({"webhook_config": web}, {"method_definitions": methods}):
        with pytest.raises(GRPCError, match="web endpoints") as refused:
            target.loop.run_until_complete(
                target.call("FunctionPrecreate", app_id=target.known["app_id"][0], function_name="w", **asked)
            )
        assert refused.value.status is Status.UNIMPLEMENTED
    assert len(list(target.plane.parts.execution.functions)) == before
