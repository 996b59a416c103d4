"""What is not emulated is refused with what the user did. Fields of definitions: test_definition_fields.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from grpclib import GRPCError, Status
from modal_proto import api_pb2

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
