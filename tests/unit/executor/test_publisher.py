"""An executor's snapshot: readable by its neighbours, and written only when there is something new."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import pytest

from modalflow.errors import MalformedMessageError
from modalflow.executor.lifecycle.call import Call, Phase
from modalflow.executor.reporting.publisher import Identity, LastTrouble
from modalflow.protocol.messages import Kind
from modalflow.protocol.snapshot import LISTED_CALLS, SIGN_OF_LIFE, InFlight, Snapshot
from tests.wired import wired


class PlayedApi:
    """Modal, as far as a publisher is concerned."""

    def __init__(self) -> None:
        self.texts: list[Snapshot] = []
        self.withdrawn: list[str] = []

    async def publish(self, partition: str, text: str) -> None:
        self.texts.append(Snapshot.from_json(text))

    async def withdraw(self, partition: str) -> None:
        self.withdrawn.append(partition)

    async def withdraw_older_than(self, time: float) -> None:
        pass


def call(number: int, function_call_id: str | None = None) -> Call:
    return Call(
        number,
        f"w{number}",
        "log",
        f"d.t{number}",
        Kind.WORKLOAD,
        accepted_at=12.34,
        updated_at=0.0,
        phase=Phase.WAITING if function_call_id else Phase.QUEUED,
        function_call_id=function_call_id,
    )


def test_what_is_written_is_what_is_read() -> None:
    """Every field survives; a newer executor's field and column are passed over."""
    snapshot = Snapshot(
        "p", "host", 7, "3", "team", "0.4", 1.0, 2.0, states={"waiting": 1}, calls=(InFlight("w", "l", "waiting", 1.5),)
    )
    assert Snapshot.from_json(snapshot.to_json()) == snapshot
    wire = json.loads(snapshot.to_json()) | {"newer": 1}
    wire["columns"].append("newer")
    wire["rows"][0].append("x")
    assert Snapshot.from_json(json.dumps(wire)) == snapshot


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"columns": ["work_id"], "rows": [[]]}', 7, None])
def test_anything_else_is_refused(text: object) -> None:
    """What a container may have written in its place is an error, not a surprise."""
    with pytest.raises(MalformedMessageError):
        Snapshot.from_json(text)


async def test_nothing_new_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same state costs no RPC, until it is time for a sign of life."""
    now = [1000.0]
    monkeypatch.setattr("modalflow.executor.reporting.publisher.time", SimpleNamespace(time=lambda: now[0]))
    api = PlayedApi()
    wiring = wired(api, identity=Identity("5", "red"), status_interval=10)
    calls, publisher = wiring.calls, wiring.publisher
    calls.add(call(1))
    await publisher.publish()
    now[0] += 10
    await publisher.publish()
    assert [(s.job_id, s.team, s.states) for s in api.texts] == [("5", "red", {"waiting": 1})]
    calls.add(call(2, "fc-2"))
    await publisher.publish()
    assert api.texts[-1].states == {"waiting": 1, "submitted": 1}
    assert [c.since for c in api.texts[-1].calls] == [12.3, 12.3]
    now[0] += SIGN_OF_LIFE
    await publisher.publish()
    assert len(api.texts) == 3
    await publisher.withdraw()
    assert api.withdrawn == [wiring.partition]


async def test_many_calls_are_counted_and_some_are_listed() -> None:
    """A snapshot stays small: it lists the oldest calls and says how many more there are."""
    api = PlayedApi()
    wiring = wired(api)
    for number in range(LISTED_CALLS + 500):
        wiring.calls.add(call(number, "fc-01234567890123456789"))
    await wiring.publisher.publish()
    [snapshot] = api.texts
    assert (len(snapshot.calls), snapshot.more, snapshot.in_flight) == (LISTED_CALLS, 500, LISTED_CALLS + 500)
    assert snapshot.calls[0].work_id == "w0"
    assert len(snapshot.to_json()) < 1 << 20


def test_the_last_warning_is_what_troubles() -> None:
    """Whatever a file of the executor warns of is shown, on one line; another thread's log is not its own."""
    trouble = LastTrouble()
    log = logging.getLogger("modalflow.executor.submission.submitter")
    with trouble.listening():
        log.warning("Modal did not take %s yet\n(429)", "it")
        log.info("fine again")
        logging.getLogger("elsewhere").error("not ours")
    log.warning("too late")
    assert trouble.text == "Modal did not take it yet (429)"
    assert trouble.at > 0
