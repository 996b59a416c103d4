"""Whatever a request holds, it gets an answer or a reason, and the control plane goes on."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import Message
from grpclib import Status
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.emulator.hostile import Hostile
from tests.unit.emulator.target import SERVICE, Target

#: Requests in all. More of them: HOSTILE_REQUESTS=100000 pytest …
REQUESTS = int(os.environ.get("HOSTILE_REQUESTS", "500"))

#: What says nothing of the request but that the control plane has a bug.
BUGS = {Status.INTERNAL, Status.UNKNOWN, Status.DATA_LOSS}

#: These would end what the other requests are about, so they hear of nothing that is there but a spare app.
ENDING = {
    "AppClientDisconnect",
    "AppPublish",
    "AppStop",
    "ContainerStop",
    "DictDelete",
    "EnvironmentDelete",
    "EnvironmentUpdate",
    "FunctionCallCancel",
    "ImageDelete",
    "QueueDelete",
    "SecretDelete",
    "TaskResult",
    "VolumeDelete",
    "VolumeRename",
}


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    made = Target()
    yield made
    made.close()


def test_no_request_is_a_bug(target: Target) -> None:
    """Missing parts, negative numbers, unknown enums, NULs and paths upwards get a reason, never INTERNAL or UNKNOWN;
    after all of them the control plane answers as before."""
    hostile, strange = Hostile(target.known), Hostile({"app_id": [target.spare_app_id]})
    names = sorted(target.plane.parts.front.handlers.implemented)
    requests = st.sampled_from(names).flatmap(
        lambda name: st.tuples(
            st.just(name), (strange if name in ENDING else hostile).requests(SERVICE.methods_by_name[name].input_type)
        )
    )

    @settings(
        max_examples=REQUESTS,
        deadline=None,
        derandomize=REQUESTS < 10_000,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests, st.booleans())
    def send(case: tuple[str, Message], as_container: bool) -> None:
        name, request = case
        status = target.send(name, request, as_container=as_container)
        assert status not in BUGS, f"{name} by a {'container' if as_container else 'client'}: {target.said}"

    send()
    assert target.send("EnvironmentList", Empty(), as_container=False) is Status.OK
