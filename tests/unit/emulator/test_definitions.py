"""What options make of a function, and ends of processes of a sentence."""

from __future__ import annotations

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

from modalflow.emulator.containers.results import describe_ending
from modalflow.emulator.definitions.definition_check import refuse_unsupported
from modalflow.emulator.functions.function import apply_options


def test_options_change_what_they_name() -> None:
    """Options replace what they name and leave the rest."""
    spec = api_pb2.Function(timeout_secs=300, secret_ids=["st-1"], task_idle_timeout_secs=9)
    spec.autoscaler_settings.scaledown_window = 9
    apply_options(spec, api_pb2.FunctionOptions(timeout_secs=7, concurrency_limit=2))
    assert (spec.timeout_secs, spec.concurrency_limit, spec.autoscaler_settings.max_containers) == (7, 2, 2)
    assert list(spec.secret_ids) == ["st-1"]
    assert spec.autoscaler_settings.scaledown_window == 9


def test_options_replace_lists_only_if_they_say_so() -> None:
    """Secrets and volumes are added, or replaced where the request asks for that."""
    spec = api_pb2.Function(secret_ids=["st-1"])
    apply_options(spec, api_pb2.FunctionOptions(secret_ids=["st-2"]))
    assert list(spec.secret_ids) == ["st-1", "st-2"]
    apply_options(spec, api_pb2.FunctionOptions(secret_ids=["st-3"], replace_secret_ids=True))
    assert list(spec.secret_ids) == ["st-3"]


def test_what_is_not_emulated_is_refused() -> None:
    """A definition that needs more than there is is UNIMPLEMENTED, not half done."""
    refuse_unsupported(api_pb2.Function(function_name="f", timeout_secs=3))
    for definition in (
        api_pb2.Function(schedule=api_pb2.Schedule(cron=api_pb2.Schedule.Cron(cron_string="* * * * *"))),
        api_pb2.Function(webhook_config=api_pb2.WebhookConfig(type=api_pb2.WEBHOOK_TYPE_ASGI_APP)),
        api_pb2.Function(block_network=True),
    ):
        with pytest.raises(GRPCError) as raised:
            refuse_unsupported(definition)
        assert raised.value.status is Status.UNIMPLEMENTED


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (0, "exited with code 0"),
        (3, "exited with code 3"),
        (-9, "exited with signal 9 (SIGKILL)"),
        (137, "exited with signal 9 (SIGKILL)"),
        (139, "exited with signal 11 (SIGSEGV)"),
        (255, "exited with code 255"),
    ],
)
def test_how_a_process_ended(code: int, said: str) -> None:
    """Exit codes as a shell and as Python report them read the same."""
    assert describe_ending(code) == said
