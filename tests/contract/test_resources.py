"""Cores, memory and GPUs: what containers occupy, what waits for it, and what comes of having too much."""

from __future__ import annotations

from collections.abc import Iterator

import modal
import pytest
from modal.exception import RemoteError
from modal_proto import api_pb2

from modalflow.emulator.local import LocalModal
from tests.contract.deploying import Deployed
from tests.sdk import client_of, rpc
from tests.support import wait_until

pytestmark = pytest.mark.local_only


@pytest.fixture(scope="module")
def client() -> Iterator[modal.Client]:
    """Of a control plane with two GPUs."""
    with (
        LocalModal(gpus={"H100": 1, "T4": 1}) as control_plane,
        client_of(control_plane.url, control_plane.env) as made,
    ):
        yield made


@pytest.fixture(scope="module")
def deployed(client: modal.Client) -> Deployed:
    return Deployed("resource_app", "resources", client)


@pytest.fixture
def held(client: modal.Client) -> modal.Dict:
    return modal.Dict.from_name("resources-held", create_if_missing=True, client=client).hydrate(client)


def logged(deployed: Deployed, words: str) -> str:
    """The line of the app's log that has the words."""
    app = modal.App.lookup(deployed.name, client=deployed.client)
    request = api_pb2.AppFetchLogsRequest(app_id=app.app_id or "", limit=1_000)
    request.since.GetCurrentTime()
    request.since.seconds -= 600

    def found() -> str:
        # Not app.logs: SDKs before 1.5.3 lack it.
        request.until.GetCurrentTime()
        batches = rpc(deployed.client, "AppFetchLogs", request).batches
        return next((item.data for batch in batches for item in batch.items if words in item.data), "")

    return str(wait_until(found, timeout=30.0, what=words))


def test_a_gpu_is_waited_for(deployed: Deployed, held: modal.Dict) -> None:
    """A second container that wants the only H100 waits until the first one ends, and the log says for what."""
    first = deployed.function("hold_gpu").spawn("one")
    wait_until(lambda: held.get("one-began"), timeout=30.0, what="the first to have the GPU")
    second = deployed.function("hold_gpu").spawn("two")
    assert "1 H100: 1 of 1 are in use by hold_gpu" in logged(deployed, "hold_gpu waits for")
    assert held.get("two-began") is None
    held["two"] = True
    held["one"] = True
    assert (first.get(timeout=30), second.get(timeout=30)) == ("0", "0")


def test_the_next_gpu_of_a_list_is_taken(deployed: Deployed) -> None:
    """Of a list of GPUs the first that there is will do; the container sees that one alone."""
    assert deployed.call("any_of_two") == "1"


def test_a_gpu_that_is_not_there_is_said(deployed: Deployed) -> None:
    """Where GPUs are declared, a call that wants another one fails at once and says how to declare it."""
    with pytest.raises(RemoteError, match=r"1 A100 and this control plane has 0 .*--gpu A100=1"):
        deployed.call("without_a_gpu")


def test_more_cores_than_there_are(deployed: Deployed) -> None:
    """A function that wants more cores than the machine has gets all of them, and its log says so."""
    assert deployed.call("many_cores") == "ran"
    assert "asks for 64 cores and gets all" in logged(deployed, "many_cores asks")


def test_a_memory_limit_ends_the_container(deployed: Deployed) -> None:
    """A container over its limit is killed, and whoever waits reads how much it had and how much it might have."""
    with pytest.raises(RemoteError, match=r"ran out of memory: \d+ MiB in use, the limit is 160 MiB"):
        deployed.call("allocate", 300)
    assert deployed.call("allocate", 8) == 8 * 2**20
    assert "the limit is 160 MiB" in logged(deployed, "ran out of memory")


def test_a_request_is_no_limit(deployed: Deployed) -> None:
    """A mere memory request may be exceeded, as on Modal."""
    assert deployed.call("allocate_without_limit", 200) == 200 * 2**20
