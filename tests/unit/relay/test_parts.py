"""The parts of the relay on their own: messages, encryption, keys, order, memory, rights, repeats."""

from __future__ import annotations

import base64
import dataclasses
import importlib.util
import json
import re
import secrets
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.errors import MalformedMessageError
from modalflow.names import RELAY_KEY_PREFIX
from modalflow.relay import key_function, keys
from modalflow.relay.container.repeats import understood
from modalflow.relay.encryption import (
    KeyPair,
    NotAuthenticError,
    PublicKey,
    Session,
    SessionKeys,
    keys_of_session,
    open_sealed,
    public_of,
)
from modalflow.relay.host import rights
from modalflow.relay.host.fair_queue import FairQueue, Rank, rank
from modalflow.relay.host.seen_requests import SeenRequest, SeenRequests, Sight
from modalflow.relay.messages import Answer, Direction, Header, Request, unpack
from tests.support import Clock
from tests.unit.relay.conversation import key_pair

HEADER = Header(Direction.REQUEST, "key", "session", "1", 1, 100.0)


def answer_header(session: Session) -> Header:
    return Header(Direction.ANSWER, session.key_id, session.name, "1", 1, 100.0, relay="r")


# --- messages ---


@given(st.binary(max_size=200) | st.text() | st.none())
def test_whatever_is_on_the_queue_is_read_or_refused(item: object) -> None:
    """Any other item is a MalformedMessageError, and nothing worse."""
    with pytest.raises(MalformedMessageError):
        raw, _ = unpack(item)
        Header.read(raw)


@given(
    st.dictionaries(
        st.sampled_from([f.name for f in dataclasses.fields(Header)]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.lists(st.none()),
        min_size=1,
    )
)
def test_a_header_has_values_of_its_types(changes: dict[str, object]) -> None:
    """A header with other values is refused, or has plain values within its limits."""
    wire = json.loads(HEADER.to_bytes()) | changes
    try:
        header = Header.read(json.dumps(wire).encode())
    except MalformedMessageError:
        return
    assert 0 <= header.part < header.parts < 100 and isinstance(header.sent_at, int | float)


# --- encryption ---


def test_only_the_relay_reads_a_request_and_only_the_container_its_answer() -> None:
    """Another container has the public key and sees every item; it can neither read nor answer."""
    pair = key_pair()
    session, other = Session(pair.public), Session(pair.public)
    item = session.keys.seal(dataclasses.replace(HEADER, session=session.name), b"token")
    relays = keys_of_session(pair, session.public)
    raw, sealed = unpack(item)
    assert relays.open(Direction.REQUEST, raw, sealed) == b"token"
    with pytest.raises(NotAuthenticError):
        other.keys.open(Direction.REQUEST, raw, sealed)
    raw, sealed = unpack(relays.seal(answer_header(session), b"answer"))
    assert session.keys.open(Direction.ANSWER, raw, sealed) == b"answer"
    with pytest.raises(NotAuthenticError):
        other.keys.open(Direction.ANSWER, raw, sealed)
    # What another container can make of all that it knows: its own keys, and those public halves.
    own = secrets.token_bytes(32)
    forged = SessionKeys.derive(own, session.public, key_id=pair.id, session=session.public, relay=pair.public.raw)
    for attempt in (forged, other.keys):
        raw, sealed = unpack(attempt.seal(answer_header(session), b"forged"))
        with pytest.raises(NotAuthenticError):
            session.keys.open(Direction.ANSWER, raw, sealed)


@pytest.mark.parametrize(
    "changes", [{"request_id": "2"}, {"attempt": 2}, {"sent_at": 101.0}, {"part": 1, "parts": 2}, {"relay": "x"}]
)
def test_a_header_cannot_be_changed(changes: dict[str, object]) -> None:
    """An item with another header is not authentic; neither is a request that comes back as an answer."""
    session = Session(key_pair().public)
    raw, sealed = unpack(session.keys.seal(HEADER, b"content"))
    changed = dataclasses.replace(HEADER, **changes)  # type: ignore[arg-type]
    with pytest.raises(NotAuthenticError):
        session.keys.open(Direction.REQUEST, changed.to_bytes(), sealed)
    with pytest.raises(NotAuthenticError):
        session.keys.open(Direction.ANSWER, raw, sealed)


def test_a_public_key_travels_as_text() -> None:
    """A key is read as it was written; anything else is refused."""
    key = key_pair().public
    assert PublicKey.read(str(key)) == key
    for text in ("", "id", "id:", "id:00", ":" + "00" * 32, "id:" + "zz" * 32):
        with pytest.raises(MalformedMessageError):
            PublicKey.read(text)


# --- keys ---


def test_keys_are_handed_over_to_the_asking_process_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Function's answer has private halves only sealed, and none without a recipient; revoked keys are gone."""
    (name, value), (later, _) = keys.new_key(datetime(2026, 1, 1, tzinfo=UTC)), keys.new_key()
    monkeypatch.setenv(name, value)
    monkeypatch.setenv(later, "")
    assert [set(key) for key in key_function.hand_over({})["keys"]] == [{"id", "public"}]
    own = secrets.token_bytes(32)
    (key,) = key_function.hand_over({"for": key_function._text(public_of(own))})["keys"]
    assert value not in json.dumps(key)
    sealed, purpose = base64.b64decode(key["sealed"]), key_function.PURPOSE + key["id"]
    assert key_function._text(open_sealed(own, sealed, purpose=purpose)) == value
    with pytest.raises(NotAuthenticError):
        open_sealed(secrets.token_bytes(32), sealed, purpose=purpose)
    with pytest.raises(NotAuthenticError):
        open_sealed(own, sealed, purpose=key_function.PURPOSE + "another")


def test_a_replaced_key_is_accepted_for_a_while() -> None:
    """A key is accepted until long after its successor was made, however old it is itself."""
    now = datetime(2026, 6, 1, tzinfo=UTC)

    def made(ago: timedelta) -> str:
        return keys.new_key(now - ago)[0].removeprefix(RELAY_KEY_PREFIX)

    first, second, third = made(timedelta(days=90)), made(timedelta(days=60)), made(timedelta(hours=1))
    assert keys.accepted_ids([third, first, second], now) == {second, third}
    assert keys.accepted_ids([first], now) == {first}
    assert keys.accepted_ids([second, third], now + keys.ACCEPTED_FOR) == {third}


def test_a_private_key_is_in_no_repr() -> None:
    """A key pair can be logged."""
    pair = KeyPair("id", b"\x01" * 32)
    assert "\\x01" not in repr(pair) and "private" not in repr(pair)


# --- order and memory ---


def test_containers_take_turns_and_urgent_requests_are_first() -> None:
    """A container with a thousand requests delays another one's by one, and large bodies come last."""
    queue: FairQueue[str] = FairQueue({"busy"}.__contains__)
    for number in range(1000):
        queue.add("greedy", Rank.USUAL, f"g{number}")
    queue.add("greedy", Rank.LARGE, "bulk")
    queue.add("modest", Rank.USUAL, "m0")
    queue.add("modest", Rank.URGENT, "heartbeat")
    assert [queue.pop() for _ in range(4)] == ["heartbeat", "g0", "m0", "g1"]
    while len(queue) > 1:
        queue.pop()
    assert queue.pop(Rank.USUAL) is None and queue.pop() == "bulk" and queue.pop() is None


def test_a_container_with_enough_under_way_waits_except_with_heartbeats() -> None:
    """The requests of other containers do not wait for it."""
    queue: FairQueue[str] = FairQueue({"busy"}.__contains__)
    for container in ("busy", "idle"):
        queue.add(container, Rank.USUAL, container)
    queue.add("busy", Rank.URGENT, "heartbeat")
    assert [queue.pop() for _ in range(3)] == ["heartbeat", "idle", None]
    assert len(queue) == 1


def test_heartbeats_and_states_are_urgent() -> None:
    """The rank of a request depends on its path, and on the size of its body."""
    assert rank(Request("PUT", "task-instances/1/heartbeat")) is Rank.URGENT
    assert rank(Request("PATCH", "task-instances/1/state")) is Rank.URGENT
    assert rank(Request("GET", "variables/heartbeat")) is Rank.USUAL
    assert rank(Request("POST", "xcoms/a/b/c/d", body=bytes(300_000))) is Rank.LARGE


class Steps(OrderedDict[tuple[str, str], SeenRequest]):
    """Counts the requests that someone walks through."""

    walked = 0

    def values(self) -> Any:
        for each in super().values():
            self.walked += 1
            yield each


def test_a_request_is_known_until_no_copy_of_it_is_accepted() -> None:
    """The same message is a replay; another attempt finds the request in progress, or its answer."""
    clock = Clock()
    memory = SeenRequests(60, clock)
    sight, seen = memory.see("s", "1", 1)
    assert sight is Sight.NEW
    assert memory.see("s", "1", 1)[0] is Sight.REPLAYED
    assert memory.see("s", "1", 2)[0] is Sight.IN_PROGRESS
    assert memory.see("other", "1", 1)[0] is Sight.NEW
    memory.answered(seen, Answer(204))
    assert memory.see("s", "1", 3) == (Sight.ANSWERED, seen)
    clock.now = 119
    assert memory.see("s", "1", 3)[0] is Sight.REPLAYED
    clock.now = 400
    assert memory.see("s", "1", 1)[0] is Sight.NEW


def test_kept_answers_have_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The oldest answers are forgotten first; a repeat of their request is carried out again."""
    monkeypatch.setattr("modalflow.relay.host.seen_requests.MOST_KEPT", 100)
    memory = SeenRequests(60, Clock())
    for number in ("1", "2"):
        memory.answered(memory.see("s", number, 1)[1], Answer(200, body=bytes(80)))
    assert memory.see("s", "1", 2)[0] is Sight.NEW
    assert memory.see("s", "2", 2)[0] is Sight.ANSWERED


def test_forgetting_answers_takes_no_longer_with_more_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A relay that has answered thousands of requests finds the oldest answer at once."""
    monkeypatch.setattr("modalflow.relay.host.seen_requests.MOST_KEPT", 10)
    steps = Steps()
    memory = SeenRequests(60, Clock())
    memory._seen = steps
    for number in range(2000):
        memory.answered(memory.see("s", str(number), 1)[1], Answer(200, body=bytes(number % 2)))
    assert memory._size == 10 and steps.walked <= 4000


def test_an_answer_after_its_time_takes_no_memory() -> None:
    """The API server needed longer than the messages of the request are accepted: no repeat can ask for the answer."""
    clock = Clock()
    memory = SeenRequests(60, clock)
    _, seen = memory.see("s", "1", 1)
    clock.now = 200
    memory.see("s", "2", 1)
    memory.answered(seen, Answer(200, body=bytes(80)))
    assert memory._size == 0


# --- rights and repeats ---


def test_headers_of_the_execution_api_alone_pass() -> None:
    """No cookie, no header of a proxy and no second line gets through, in either direction."""
    given = [
        ("Authorization", "t"),
        ("Cookie", "c"),
        ("X-Forwarded-For", "x"),
        ("Accept", "a\r\nEvil: b"),
        ("Host", "h"),
    ]
    assert rights.request_headers(given) == [("Authorization", "t")]
    answered = [("Refreshed-API-Token", "n"), ("Set-Cookie", "c"), ("Location", "l"), ("Content-Length", "3")]
    assert rights.answer_headers(answered) == [("Refreshed-API-Token", "n")]


@pytest.mark.parametrize(
    "state, previous", [("success", "success"), ("failed", "up_for_retry"), ("deferred", "deferred")]
)
def test_a_state_that_airflow_has_already_is_reported(state: str, previous: str) -> None:
    """A conflict with the requested state itself is success; any other conflict stays one."""
    request = Request("PATCH", "task-instances/1/state", body=json.dumps({"state": state}).encode())
    conflict = Answer(409, body=json.dumps({"detail": {"previous_state": previous}}).encode())
    other = Answer(409, body=json.dumps({"detail": {"previous_state": "removed"}}).encode())
    assert understood(request, conflict, repeated=False).status == 204
    assert understood(request, other, repeated=True) is other
    assert understood(request, Answer(409, body=b"?"), repeated=True).status == 409


@pytest.mark.parametrize(
    "state, status, previous",
    [
        ("deferred", 409, "scheduled"),
        ("deferred", 409, "queued"),
        ("up_for_reschedule", 409, "queued"),
        ("up_for_retry", 404, None),
    ],
)
def test_airflow_may_have_gone_on_since_the_first_report(state: str, status: int, previous: str | None) -> None:
    """A repeat can find the task queued again, or under another id: then the first message has reported the state."""
    request = Request("PATCH", "task-instances/1/state", body=json.dumps({"state": state}).encode())
    detail = {"detail": {"reason": "not_found"} if previous is None else {"previous_state": previous}}
    answer = Answer(status, body=json.dumps(detail).encode())
    assert understood(request, answer, repeated=True).status == 204
    assert understood(request, answer, repeated=False) is answer
    success = Request("PATCH", "task-instances/1/state", body=b'{"state": "success"}')
    assert understood(success, answer, repeated=True) is answer


def test_repeated_changes_are_no_failures() -> None:
    """A DAG run that exists, a value that is gone and an ended connection test are what a repeated request asked for; a
    first one's are not."""
    for request, status in (
        (Request("POST", "dag-runs/d/r"), 409),
        (Request("DELETE", "variables/x"), 404),
        (Request("PATCH", "connection-tests/1"), 409),
    ):
        assert understood(request, Answer(status), repeated=True).status == 204
        assert understood(request, Answer(status), repeated=False).status == status
    assert understood(Request("GET", "variables/x"), Answer(404), repeated=True).status == 404


def test_every_route_of_the_installed_airflow_passes() -> None:
    """The list of paths and methods covers the Execution API of this Airflow."""
    spec = importlib.util.find_spec("airflow")
    assert spec is not None and spec.origin is not None
    routes = Path(spec.origin).parent / "api_fastapi/execution_api/routes"
    prefixes = dict(re.findall(r'(\w+)\.router,\s*prefix="/([\w-]+)', (routes / "__init__.py").read_text()))
    assert "task_instances" in prefixes
    for module, prefix in prefixes.items():
        methods = re.findall(r"@\w*router\.(get|head|post|put|patch|delete)\(", (routes / f"{module}.py").read_text())
        for method in methods:
            assert not rights.refusal(Request(method.upper(), f"{prefix}/x")), f"{method} {prefix}"
