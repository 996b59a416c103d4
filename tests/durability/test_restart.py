"""What callers see when the control plane is killed and started again: nothing but the time that it takes."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import modal
import pytest
from modal._serialization import deserialize_data_format
from modal.exception import ConnectionError as NoConnectionError
from modal.exception import RemoteError
from modal_proto import api_pb2

from tests.contract.deploying import Deployed
from tests.contract.inspecting import containers
from tests.durability.plane import Plane
from tests.durability.unacknowledged import UNACKNOWLEDGED, is_lost_connection
from tests.sdk import client_of, stream
from tests.support import wait_until

#: Seconds for a container to come up and to do something, on a machine that is busy with other things.
PATIENCE = 60.0


class Found(Deployed):
    """An app that is deployed already."""

    def __init__(self, module: str, name: str, client: modal.Client) -> None:
        self.name, self.client = name, client
        self._module = module


@pytest.fixture(scope="module")
def restarted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Plane, modal.Client]]:
    with Plane(tmp_path_factory.mktemp("restart") / "state") as plane:
        assert plane.address is not None
        with client_of(plane.address.url, plane.address.variables()) as client:
            Deployed("restart_app", "restarted", client)
            plane.stop()
            yield plane, client


@pytest.fixture
def plane(restarted: tuple[Plane, modal.Client]) -> Iterator[Plane]:
    """The control plane, running. A test has it for itself: what was started in it must not outlive it."""
    restarted[0].start()
    yield restarted[0]
    restarted[0].stop()


@pytest.fixture
def client(restarted: tuple[Plane, modal.Client]) -> modal.Client:
    """One client over all the restarts."""
    return restarted[1]


@pytest.fixture
def deployed(plane: Plane, client: modal.Client) -> Deployed:
    return Found("restart_app", "restarted", client)


class Notes:
    """What containers tell."""

    def __init__(self, client: modal.Client) -> None:
        self.name = f"notes-{uuid.uuid4().hex[:8]}"
        self.dict = modal.Dict.from_name(self.name, create_if_missing=True, client=client).hydrate(client)

    def keys(self) -> list[str]:
        return list(self.dict.keys())

    def runs(self, what: str) -> list[tuple[str, str]]:
        """Return (input, container) of each run that was told of."""
        found = [key.split() for key in self.keys() if key.startswith(f"{what} ")]
        return [(words[-2], words[-1]) for words in found]

    def wait_for_run(self, what: str, count: int = 1) -> list[tuple[str, str]]:
        wait_until(lambda: len(self.runs(what)) >= count, PATIENCE, f"{what} to run", 0.1)
        return self.runs(what)


@pytest.fixture
def notes(plane: Plane, client: modal.Client) -> Notes:
    return Notes(client)


def crash(plane: Plane) -> None:
    plane.kill()
    plane.start()


def result_of(call: modal.FunctionCall[Any]) -> Any:
    """Wait for a result, although the restart may take longer than the second or two after which the SDK gives up."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return call.get(timeout=PATIENCE)
        except NoConnectionError:
            if time.monotonic() > deadline:
                raise


def test_calls_go_on(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """What was done has its result, what ran runs again as the same input, what waited comes after it, in its order."""
    done = deployed.function("double").spawn(notes.name, 21)
    assert done.get(timeout=PATIENCE) == 42
    in_turn = deployed.function("in_turn")
    calls = [in_turn.spawn(notes.name, number, "open") for number in range(3)]
    [(input_id, container)] = notes.wait_for_run("in_turn 0")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(result_of, calls[0])
        crash(plane)
        assert done.get(timeout=0) == 42
        assert in_turn.get_current_stats().backlog >= 2
        notes.wait_for_run("in_turn 0", 2)
        assert {i for i, _ in notes.runs("in_turn 0")} == {input_id}, "the same input"
        assert {c for _, c in notes.runs("in_turn 0")} > {container}, "in another container"
        assert not notes.runs("in_turn 1")
        notes.dict["open"] = True
        assert waiting.result() == 0, "who waited for it still does"
    from_id = [modal.FunctionCall.from_id(c.object_id, client=deployed.client) for c in calls]
    assert [c.get(timeout=PATIENCE) for c in from_id] == [0, 1, 2]
    assert [len(notes.runs(f"in_turn {n}")) for n in range(3)] == [2, 1, 1]
    assert in_turn.get_current_stats().backlog == 0


def test_a_map_goes_on(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """A map that is half done when the control plane dies gives each result once, in order."""
    double = deployed.function("in_turn")
    with ThreadPoolExecutor(1) as pool:
        mapped = pool.submit(lambda: list(double.map([notes.name] * 40, range(40))))
        wait_until(lambda: len(notes.keys()) >= 20, PATIENCE, "half of the map", 0.02)
        crash(plane)
        assert mapped.result(PATIENCE) == list(range(40))
    runs = [len(notes.runs(f"in_turn {n}")) for n in range(40)]
    assert min(runs) == 1 and sum(runs) <= 41, "at most what ran at that moment ran again"


def test_variants_classes_and_a_redeployment(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """Handles from before a restart go on working, bound options and parameters have their effect, ids stay."""
    adder = modal.Cls.from_name("restarted", "Adder", client=deployed.client)(start=5)
    variable = deployed.function("variable").with_options(env={"COLOUR": "red"})
    waiting = adder.add.spawn(notes.name, 1, "open")
    assert variable.remote("COLOUR") == "red"
    notes.wait_for_run("add 1")
    ids = deployed.function("double").hydrate().object_id, variable.object_id
    crash(plane)
    assert variable.remote("COLOUR") == "red"
    deployed.deploy()
    assert (deployed.function("double").hydrate().object_id, variable.object_id) == ids
    crash(plane)
    notes.dict["open"] = True
    assert waiting.get(timeout=PATIENCE) == 6
    assert adder.add.remote(notes.name, 2) == 7
    assert deployed.call("double", notes.name, 4) == 8


def test_a_cancelled_call_stays_cancelled(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """Cancelled and acknowledged before the control plane died: it ends so, and does not run again."""
    double = deployed.function("double")
    running = double.spawn(notes.name, 1, "never")
    before = notes.wait_for_run("double 1")
    running.cancel()
    crash(plane)
    with pytest.raises(RemoteError, match="cancelled"):
        running.get(timeout=PATIENCE)
    assert deployed.call("double", notes.name, 2) == 4
    assert notes.runs("double 1") == before


def test_a_generator_goes_on(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """A generator is run again from its beginning, and who reads it sees each item once, from wherever they read.

    Not through remote_gen: the SDK gives up a stream whose connection is refused even once.
    """
    items = deployed.function("count").remote_gen(notes.name, 6, 3)
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    crash(plane)
    notes.wait_for_run("count", 2)
    notes.dict["go on"] = True
    with pytest.raises(UNACKNOWLEDGED) as gave_up:
        next(items)
    assert is_lost_connection(gave_up.value)
    call_id = notes.dict["call"]
    assert modal.FunctionCall.from_id(call_id, client=deployed.client).get(timeout=PATIENCE).items_total == 6
    chunks = stream(
        deployed.client, "FunctionCallGetDataOut", api_pb2.FunctionCallGetDataRequest(function_call_id=call_id)
    )
    assert [c.index for c in chunks] == [1, 2, 3, 4, 5, 6]
    assert [deserialize_data_format(c.data, c.data_format, deployed.client) for c in chunks] == list(range(6))


def test_containers_that_are_to_be_there(plane: Plane, deployed: Deployed) -> None:
    """min_containers are started again without a call."""
    crash(plane)
    wait_until(lambda: containers(deployed.client, "restarted"), PATIENCE, "the container that is to be there")


def test_an_ephemeral_app_goes_on(plane: Plane, client: modal.Client) -> None:
    """A program within app.run() can go on calling."""
    app = modal.App("ephemeral")

    @app.function(serialized=True)
    def square(number: int) -> int:
        return number * number

    with app.run(client=client):
        assert square.remote(3) == 9
        crash(plane)
        assert square.remote(4) == 16


def test_a_restart_on_purpose_is_no_different(tmp_path: Path) -> None:
    """What runs when the control plane is stopped runs again when it is started."""
    with Plane(tmp_path / "state") as plane:
        assert plane.address is not None
        with client_of(plane.address.url, plane.address.variables()) as client:
            deployed, notes = Deployed("restart_app", "stopped", client), Notes(client)
            call = deployed.function("double").spawn(notes.name, 3, "open")
            notes.wait_for_run("double 3")
            plane.stop()
            plane.start()
            notes.dict["open"] = True
            assert call.get(timeout=PATIENCE) == 6


def test_logs_are_there(plane: Plane, deployed: Deployed, notes: Notes) -> None:
    """What a call printed before the crash is read after it, and what is printed afterwards comes behind it."""
    before = deployed.function("double").spawn(notes.name, 1001)
    assert before.get(timeout=PATIENCE) == 2002
    crash(plane)
    assert "".join(e.message for e in before.logs.tail(10)) == "doubling 1001\n"
    assert deployed.call("double", notes.name, 1002) == 2004
    log = "".join(e.message for e in deployed.function("double").logs.tail(100))
    assert log.index("doubling 1001\n") < log.index("doubling 1002\n")
