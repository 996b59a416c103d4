"""The stand-in for the Execution API: reads are Airflow's, and writes stay in memory."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from modalflow.operations.single_task.stand_in import Given, Instance, StandIn
from tests.support import wait_until

OWN = "xcoms/d/r/t"


@dataclass
class Airflow:
    """What Airflow has, by path, and what it was asked."""

    has: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, method: str, path: str, headers: Mapping[str, str]) -> Given:
        self.asked.append((method, path))
        if path not in self.has:
            return Given(404, b'{"detail": {"reason": "not_found"}}')
        return Given(200, json.dumps(self.has[path]).encode())


def ask(stand_in: StandIn, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """A request of the task: status and body."""
    data = None if body is None else json.dumps(body).encode()
    given = stand_in.answer(method, f"/execution/{path}", {"authorization": f"Bearer {stand_in.token}"}, data or b"")
    return given.status, json.loads(given.body) if given.body else None


def made(airflow: Airflow, *, map_index: int = -1, map_indexes: tuple[int, ...] = (-1,)) -> StandIn:
    return StandIn(Instance("d", "r", "t", map_index, map_indexes), {"max_tries": 0}, airflow)


def test_reads_are_airflows() -> None:
    """With their query, and with its own errors."""
    airflow = Airflow({"/connections/store": {"conn_id": "store"}, "/dag-runs/count?dag_id=d": 4})
    stand_in = made(airflow)
    assert ask(stand_in, "GET", "connections/store") == (200, {"conn_id": "store"})
    assert ask(stand_in, "GET", "dag-runs/count?dag_id=d") == (200, 4)
    assert ask(stand_in, "GET", "variables/x") == (404, {"detail": {"reason": "not_found"}})


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("PATCH", "task-instances/1/state", {"state": "failed"}, 204),
        ("PUT", "task-instances/1/heartbeat", {"pid": 1}, 204),
        ("PUT", "task-instances/1/rtif", {}, 201),
        ("PATCH", "task-instances/1/skip-downstream", {"tasks": ["a"]}, 204),
        ("POST", "dag-runs/other/r2", {}, 204),
        ("POST", f"{OWN}/k", 1, 201),
        ("PUT", "variables/v", {"val": "1"}, 201),
        ("DELETE", "variables/v", None, 201),
        ("PUT", "store/ti/1/k", {"value": 1}, 204),
        ("POST", "hitlDetails/1", {}, 403),
        ("PATCH", "anything/new", {}, 403),
    ],
)
def test_no_write_reaches_airflow(method: str, path: str, body: object, status: int) -> None:
    """Known ones are accepted, and the others refused: what no one has thought of may not pretend to work."""
    airflow = Airflow()
    assert ask(made(airflow), method, path, body)[0] == status
    assert airflow.asked == []


def test_a_start_is_answered_without_airflow() -> None:
    """With the context of the try, and after a deferral with the next call."""
    stand_in = made(Airflow())
    assert ask(stand_in, "PATCH", "task-instances/1/run", {"pid": 1}) == (200, {"max_tries": 0})
    stand_in.resume({"next_method": "go_on"})
    assert ask(stand_in, "PATCH", "task-instances/1/run", {"pid": 1})[1]["next_method"] == "go_on"


def test_a_task_reads_what_it_wrote() -> None:
    """Its XComs, variables and stored states, until it deletes them."""
    stand_in = made(Airflow({"/variables/v": {"key": "v", "value": "airflow's"}}))
    ask(stand_in, "POST", f"{OWN}/k", {"a": 1})
    assert ask(stand_in, "GET", f"{OWN}/k") == (200, {"key": "k", "value": {"a": 1}})
    assert ask(stand_in, "GET", f"{OWN}/k/slice") == (200, [{"a": 1}])
    assert ask(stand_in, "GET", f"{OWN}/k/item/0") == (200, {"a": 1})
    assert ask(stand_in, "GET", f"{OWN}/k/item/1")[0] == 404
    ask(stand_in, "DELETE", f"{OWN}/k")
    assert ask(stand_in, "GET", f"{OWN}/k")[0] == 404
    assert ask(stand_in, "GET", "variables/v")[1]["value"] == "airflow's"
    ask(stand_in, "PUT", "variables/v", {"val": "new"})
    assert ask(stand_in, "GET", "variables/v")[1]["value"] == "new"
    ask(stand_in, "DELETE", "variables/v")
    assert ask(stand_in, "GET", "variables/v")[0] == 404


def test_the_tries_own_xcoms_are_cleared() -> None:
    """As at the start of a try; those of upstream tasks and of mapped siblings stay."""
    airflow = Airflow(
        {
            f"/{OWN}/k?map_index=0": {"key": "k", "value": "zero"},
            f"/{OWN}/k?map_index=1": {"key": "k", "value": "mine, old"},
            "/xcoms/d/r/up/k?map_index=0": {"key": "k", "value": "up"},
        }
    )
    stand_in = made(airflow, map_index=1, map_indexes=(0, 1, 2))
    assert ask(stand_in, "GET", f"{OWN}/k?map_index=1")[0] == 404
    assert ask(stand_in, "GET", f"{OWN}/k?map_index=0")[1]["value"] == "zero"
    assert ask(stand_in, "GET", "xcoms/d/r/up/k?map_index=0")[1]["value"] == "up"
    ask(stand_in, "POST", f"{OWN}/k?map_index=1", "mine")
    assert ask(stand_in, "GET", f"{OWN}/k/slice?start=0&stop=5") == (200, ["zero", "mine"])
    assert stand_in.answer(
        "HEAD", f"/execution/{OWN}/k", {"authorization": f"Bearer {stand_in.token}"}, b""
    ).headers == {"content-range": "map_indexes 2"}


def test_what_was_kept_is_named() -> None:
    """For the user: the last state, and what the task would have started."""
    stand_in = made(Airflow())
    ask(stand_in, "POST", "dag-runs/other/manual__1", {})
    ask(stand_in, "PATCH", "task-instances/1/state", {"state": "success"})
    assert stand_in.kept.final_state == "success"
    assert stand_in.kept.others == ["the start of DAG run other manual__1"]


def test_only_its_task_is_answered() -> None:
    """Another process of this machine can read no connection."""
    airflow = Airflow({"/connections/store": {"password": "secret"}})
    with made(airflow) as stand_in:
        request = urllib.request.Request(f"{stand_in.url}connections/store")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code == 403
        refused.value.close()
        request.add_header("authorization", f"Bearer {stand_in.token}")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer) == {"password": "secret"}
    assert airflow.asked == [("GET", "/connections/store")]


@pytest.mark.parametrize("token", ["", "Bearer wrong", "Bearer \u00e9"])
def test_a_body_is_read_for_the_task_alone(token: str) -> None:
    """A request without the token is answered before its body has come, and its connection ends."""
    with made(Airflow()) as stand_in, socket.create_connection(("127.0.0.1", urlsplit(stand_in.url).port or 0)) as raw:
        raw.settimeout(30)
        head = f"POST /execution/{OWN}/k HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\nauthorization: {token}\r\n"
        raw.sendall(head.encode("latin-1") + b"\r\n")
        answer = b"".join(iter(lambda: raw.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 403 ")
    assert b"connection: close" in answer.lower()
    assert not stand_in.kept.xcoms


def test_a_request_of_the_task_has_its_body() -> None:
    """Over HTTP, several of them on one connection."""
    with made(Airflow()) as stand_in:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(stand_in.url).port or 0, timeout=30)
        for number in (1, 2):
            own = {"authorization": f"Bearer {stand_in.token}", "content-type": "application/json"}
            connection.request("POST", f"/execution/{OWN}/k{number}", json.dumps(number), own)
            answer = connection.getresponse()
            assert (answer.status, bool(answer.read())) == (201, True)
        connection.close()
    assert [stand_in.kept.xcoms["d", "r", "t", f"k{number}", -1] for number in (1, 2)] == [1, 2]


@pytest.mark.parametrize(("broken", "is_printed"), [(ConnectionResetError, False), (ZeroDivisionError, True)])
def test_a_task_that_is_gone_is_no_error(
    broken: type[Exception], is_printed: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    """A shell in a terminal shows no traceback after Ctrl-C, but it shows a mistake of ours."""

    def fails(*_: object) -> Given:
        raise broken

    with made(Airflow()) as stand_in:
        stand_in._reads = fails
        request = urllib.request.Request(
            f"{stand_in.url}variables/x", headers={"authorization": f"Bearer {stand_in.token}"}
        )
        with pytest.raises((http.client.RemoteDisconnected, ConnectionError)):
            urllib.request.urlopen(request, timeout=30)
        wait_until(lambda: not any("process_request" in thread.name for thread in threading.enumerate()))
    assert ("Traceback" in capfd.readouterr().err) == is_printed
