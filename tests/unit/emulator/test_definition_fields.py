"""Nothing of a definition is ignored in silence: each field is used, refused, or named as without effect."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import modal
import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from grpclib import GRPCError, Status
from modal_proto import api_pb2

import modalflow.emulator
from modalflow.emulator.definitions import field_table
from modalflow.emulator.definitions.definition_check import (
    lines_without_effect,
    refuse_unsupported,
    rows,
    warnings_of,
)
from modalflow.emulator.definitions.effects import (
    Effect,
    HandedOn,
    InParts,
    Internal,
    Reader,
    Refused,
    Used,
    WithoutEffect,
)
from modalflow.emulator.definitions.field_table import FIELDS, REQUESTS, SAME_AS
from modalflow.emulator.definitions.isolation_lines import lines_of
from modalflow.emulator.definitions.page import page
from modalflow.emulator.functions.function import apply_options
from modalflow.emulator.processes.container_spec import Isolation
from modalflow.emulator.rpc.handlers import rpc_table
from modalflow.emulator.rpc.unimplemented import refusal
from tests.unit.emulator.target import SERVICE, Target

EMULATOR = Path(modalflow.emulator.__file__).parent
SDK = Path(modal.__file__).parent

#: Fields that only some of the supported SDKs have. A new SDK's belong here if the oldest one lacks them.
BY_VERSION = {
    "AppPublishRequest": "staged deployment_type",
    "AutoscalerSettings": "max_scaledowns_per_minute scaledown_rate_limit target_concurrency_float",
    "Function": "use_function_id use_method_name _experimental_proxy_ip _experimental_fabric_size is_sessioned "
    "network_access",
    "FunctionOptions": "routing_region",
    "FunctionPrecreateRequest": "use_function_id use_method_name",
    "Image": "arch",
    "NetworkAccess": "network_access_type allowed_cidrs allowed_domains",
    "MountGetOrCreateRequest": "earliest_checked_at",
    "Resources": "skip_num_threads_env_vars",
    "VolumeCreateOptions": "experimental_options",
    "VolumeGetOrCreateRequest": "create_options",
}

#: What definitions are made of: an RPC whose request has one of these defines something.
PARTS = {
    *("AutoscalerSettings", "ClassMethod", "Function", "FunctionData", "FunctionOptions", "Image"),
    *("MethodDefinition", "Resources", "Sandbox", "SchedulerPlacement"),
}
BY_NAME = re.compile(
    r"App(Create|GetOrCreate|Publish|Deploy|SetObjects)|(Dict|Mount|Queue|Secret|SharedVolume|Volume)GetOrCreate"
)


def kind(name: str) -> type[Message]:
    """Return the message type of that name, which may be within another."""
    found: type[Message] = functools.reduce(getattr, name.split("."), api_pb2)  # type: ignore[assignment]
    return found


def name_of(descriptor: Any) -> str:
    return str(descriptor.full_name).removeprefix(f"{api_pb2.DESCRIPTOR.package}.")


def parts_of(field: Any) -> Any:
    """Return the message type of a field, that of the values for a map."""
    inner = field.message_type
    if inner is not None and inner.GetOptions().map_entry:
        return inner.fields_by_name["value"].message_type
    return inner


def is_read_in_parts(effect: Effect | None) -> bool:
    return isinstance(effect, InParts) or (isinstance(effect, Used) and not effect.whole)


def walked(name: str, seen: set[str]) -> Iterator[tuple[str, Any, Effect | None]]:
    """Return the fields of a message, and of those messages in it that are read part by part."""
    if name in seen:
        return
    seen.add(name)
    known = rows(name)
    for field in kind(name).DESCRIPTOR.fields:
        effect = known.get(field.name)
        yield name, field, effect
        inner = parts_of(field)
        if inner is not None and is_read_in_parts(effect):
            yield from walked(name_of(inner), seen)


FOUND = [found for seen in [set[str]()] for request in REQUESTS for found in walked(request, seen)]


def test_each_field_has_a_row() -> None:
    """A field of a new SDK needs a decision: used, refused or without effect."""
    assert [f"{name}.{field.name}" for name, field, effect in FOUND if effect is None] == []


def test_each_row_has_a_field() -> None:
    """A row is for a field of some supported SDK, so that a misspelt one is found."""
    strange = []
    for name, known in FIELDS.items():
        here = set(kind(name).DESCRIPTOR.fields_by_name) if hasattr(api_pb2, name.split(".")[0]) else set()
        strange += [f"{name}.{field}" for field in known.keys() - here - set(BY_VERSION.get(name, "").split())]
    assert strange == []


def test_each_message_of_the_table_is_in_a_definition() -> None:
    """The table has no rows that nothing leads to."""
    reached = {name for name, _, _ in FOUND} | set(SAME_AS.values())
    assert [name for name in FIELDS if name not in reached and name not in BY_VERSION] == []


def carries_a_definition(descriptor: Descriptor, seen: set[str]) -> bool:
    if descriptor.full_name in seen:
        return False
    seen.add(descriptor.full_name)
    inner = [field.message_type for field in descriptor.fields if field.message_type is not None]
    return any(part.name in PARTS or carries_a_definition(part, seen) for part in inner)


def test_each_rpc_that_defines_something_is_walked_or_refused(target: Target) -> None:
    """Sandboxes are refused as a whole; a request of a new SDK with a definition is neither until it is here."""
    defining = {
        method.name: method.input_type.name
        for method in SERVICE.methods
        if carries_a_definition(method.input_type, set()) or BY_NAME.fullmatch(method.name)
    }
    answered = target.plane.parts.front.handlers.implemented
    assert {request for name, request in defining.items() if name in answered} == set(REQUESTS)
    refused = defining.keys() - answered
    assert {"SandboxCreate", "SandboxCreateV2"} <= refused
    assert all("not supported by the local control plane" in refusal(name) for name in refused)


@functools.cache
def names_in(path: Path) -> frozenset[str]:
    """Return the attributes, keywords and short strings of a module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.keyword) and node.arg:
            found.add(node.arg)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return frozenset(found)


def test_each_used_field_is_read_where_the_table_says() -> None:
    """The module of the row has the field's name in its code."""
    used = {(effect.module, field.name) for _, field, effect in FOUND if isinstance(effect, Used)}
    assert [(module, name) for module, name in sorted(used) if name not in names_in(EMULATOR / module)] == []


def test_each_field_that_is_handed_on_is_read_by_the_sdk() -> None:
    """Modal's own runtime or client has the field's name in its code."""
    sources = {
        Reader.CONTAINER: [SDK / "_container_entrypoint.py", *(SDK / "_runtime").rglob("*.py")],
        Reader.CLIENT: list(SDK.glob("*.py")),
    }
    for _, field, effect in FOUND:
        if isinstance(effect, HandedOn) and field.name not in BY_VERSION["Function"].split():
            assert any(field.name in names_in(path) for path in sources[effect.reader]), field.name


def with_value(name: str, field: FieldDescriptor) -> Message:
    """Return a message with a value for the field that is not its default."""
    made = kind(name)()
    _fill(made, field)
    return made


def _fill(made: Message, field: Any) -> None:
    current = getattr(made, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if parts_of(field) is None:
            current["one"] = "1"
        else:
            _fill_first(current["one"])
    elif field.message_type is not None:
        _fill_first(current.add() if hasattr(current, "add") else current)
    elif field.enum_type is not None:
        # Not 1, which may stand for what is usual.
        last = max(field.enum_type.values_by_number)
        current.append(last) if hasattr(current, "append") else setattr(made, field.name, last)
    else:
        value: Any = {FieldDescriptor.CPPTYPE_STRING: b"x" if field.type == FieldDescriptor.TYPE_BYTES else "x"}.get(
            field.cpp_type, True if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL else 7
        )
        current.append(value) if hasattr(current, "append") else setattr(made, field.name, value)


def _fill_first(part: Message) -> None:
    plain = [field for field in part.DESCRIPTOR.fields if field.message_type is None]
    _fill(part, (plain or part.DESCRIPTOR.fields)[0])


def rows_of(*kinds: type) -> list[tuple[str, Any, Any]]:
    return [(name, field, row) for name, field, row in FOUND if isinstance(row, kinds)]


def test_each_refused_field_is_an_error_with_an_answer() -> None:
    """The error says what is missing and what to do instead, and a definition without the field passes."""
    for name, field, row in rows_of(Refused):
        refuse_unsupported(kind(name)())
        with pytest.raises(GRPCError) as raised:
            refuse_unsupported(with_value(name, field))
        assert raised.value.status is Status.UNIMPLEMENTED
        assert raised.value.message == f"The local control plane does not have {row.what}"
        assert ": " in row.what


def test_each_field_without_effect_has_one_line() -> None:
    """The line names it if it is set, and only then; a usual value needs none."""
    for name, field, row in rows_of(WithoutEffect):
        made = with_value(name, field)
        assert len(lines_without_effect(made)) == 1, f"{name}.{field.name}"
        assert lines_without_effect(kind(name)()) == []
        for usual in row.usual:
            setattr(made, field.name, usual)
            assert lines_without_effect(made) == []


def test_no_other_field_has_a_line() -> None:
    """A field with an effect is neither refused nor named."""
    for name, field, _ in rows_of(Used, HandedOn, Internal):
        if parts_of(field) is None:
            refuse_unsupported(with_value(name, field))
            assert lines_without_effect(with_value(name, field)) == [], f"{name}.{field.name}"


def test_each_option_of_a_call_changes_the_function() -> None:
    """``with_options`` has no option that is dropped on its way into the definition."""
    own = FIELDS["FunctionOptions"].keys()
    for field in api_pb2.FunctionOptions.DESCRIPTOR.fields:
        if field.name not in own or field.name == "buffer_containers":
            spec = api_pb2.Function()
            apply_options(spec, with_value("FunctionOptions", field))  # type: ignore[arg-type]
            assert spec.ByteSize(), field.name


def definition(**fields: Any) -> api_pb2.Function:
    return api_pb2.Function(function_name="f", **fields)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (definition(i6pn_enabled=True), ["asks for i6pn and runs without it: containers here have no private"]),
        (definition(checkpointing_enabled=True, is_auto_snapshot=True), ["asks for memory snapshots"]),
        (definition(cloud_provider_str="aws"), ["asks for cloud=aws and runs on this machine"]),
        (definition(cloud_provider=api_pb2.CLOUD_PROVIDER_OCI), ["asks for cloud=cloud_provider_oci and runs"]),
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
def test_the_lines_of_a_function(asked: api_pb2.Function, said: list[str]) -> None:
    """One line for each option that was given, with its value."""
    found = lines_without_effect(asked)
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


@pytest.mark.parametrize(
    ("isolation", "said"),
    [
        (Isolation.ROOT, []),
        (Isolation.USER, []),
        (Isolation.GVISOR, ["gets GPUs by number alone"]),
        (
            Isolation.PLAIN,
            ["asks for a mount at /data and has none there", "asks for a read-only mount at /root/in and is able"],
        ),
    ],
)
def test_the_lines_of_an_isolation(isolation: Isolation, said: list[str]) -> None:
    """What only some kinds of isolation can do has a line where it is missing."""
    mounts = [
        api_pb2.VolumeMount(mount_path="/data"),
        api_pb2.VolumeMount(mount_path="/root/in", read_only=True),
        api_pb2.VolumeMount(mount_path="/root/out"),
    ]
    found = lines_of(definition(volume_mounts=mounts), isolation, has_gpus=True)
    assert len(found) == len(said)
    assert all(words in line for words, line in zip(said, found, strict=True))


def test_a_field_without_a_row_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An SDK newer than this modalflow is installed beside it, and a definition uses its news."""
    without = {name: row for name, row in FIELDS["Function"].items() if name != "i6pn_enabled"}
    monkeypatch.setattr(field_table, "FIELDS", {**FIELDS, "Function": without})
    monkeypatch.setattr("modalflow.emulator.definitions.definition_check.FIELDS", {**FIELDS, "Function": without})
    (line,) = lines_without_effect(definition(i6pn_enabled=True))
    assert line == "sets i6pn_enabled, which is newer than this modalflow: it may have no effect"


def test_a_field_that_the_schema_lacks_is_named() -> None:
    """The client's SDK is newer than the control plane's."""
    sent = definition().SerializeToString() + b"\xfa\x3f\x01x"
    (line,) = lines_without_effect(api_pb2.Function.FromString(sent))
    assert line.startswith(f"has options of a newer `modal` than the {modal.__version__} of this control plane")


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def test_a_deployment_gets_the_lines(target: Target) -> None:
    """Each function's answer has its own, once for each deployment, whichever way the SDK describes it."""
    app_id = target.known["app_id"][0]
    function = definition(i6pn_enabled=True, cloud_provider_str="aws")
    ranked = [api_pb2.FunctionData.RankedFunction(rank=rank, function=function) for rank in (0, 1)]
    data = api_pb2.FunctionData(function_name="f", ranked_functions=ranked)
    for described in ({"function": function}, {"function_data": data}):
        made = target.loop.run_until_complete(target.call("FunctionCreate", app_id=app_id, **described))
        assert list(made.server_warnings) == warnings_of("f", function)
        assert [warning.message for warning in made.server_warnings] == [
            "f asks for i6pn and runs without it: containers here have no private addresses",
            "f asks for cloud=aws and runs on this machine",
        ]


def test_a_field_of_an_app_that_the_schema_lacks_is_named(target: Target) -> None:
    """The SDK shows the line at the end of the deployment."""
    app_id = target.spare_app_id
    sent = api_pb2.AppPublishRequest(app_id=app_id, app_state=api_pb2.APP_STATE_EPHEMERAL).SerializeToString()
    request = api_pb2.AppPublishRequest.FromString(sent + b"\xfa\x3f\x01x")
    for published, lines in ((request, 1), (api_pb2.AppPublishRequest.FromString(sent), 0)):
        answer = target.loop.run_until_complete(target.client.AppPublish(published, metadata=target._token))
        assert len(answer.server_warnings) == lines


def refused_requests(name: str) -> Iterator[Message]:
    """Return requests with one refused field each, of their own or of a message in them."""
    for found, field, row in FOUND:
        if found == name and isinstance(row, Refused):
            yield with_value(name, field)
        elif found == name and field.message_type is not None and is_read_in_parts(row):
            inner = name_of(field.message_type)
            for part in (part for of, part, row in FOUND if of == inner and isinstance(row, Refused)):
                request = kind(name)()
                getattr(request, field.name).CopyFrom(with_value(inner, part))
                yield request


def test_each_request_is_checked(target: Target) -> None:
    """What the table refuses is refused by the RPC: the check is not forgotten in a handler."""
    checked = set()
    for name in REQUESTS:
        rpc = next(rpc for rpc in rpc_table() if SERVICE.methods_by_name[rpc].input_type.name == name)
        for request in refused_requests(name):
            for known, ids in target.known.items():
                field = request.DESCRIPTOR.fields_by_name.get(known)
                if field is not None and not getattr(request, known):
                    setattr(request, known, ids[0])
            assert target.send(rpc, request, as_container=False, patience=30.0) is Status.UNIMPLEMENTED
            checked.add(name)
    assert {"AppPublishRequest", "FunctionCreateRequest", "ImageGetOrCreateRequest"} <= checked


def test_the_page_is_up_to_date() -> None:
    """The committed page is the table's."""
    committed = Path(__file__).parents[3] / "docs" / "local-control-plane-options.md"
    assert committed.read_text() == page(), "run `make docs`"
