"""A stand-in for Airflow's Execution API: reads come from Airflow, and writes stay in memory.

Listens on the loopback interface, for one task whose token is made here. Must not write to Airflow: no request other
than a read is passed on.
"""

from __future__ import annotations

import hmac
import json
import re
import secrets
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

PREFIX = "/execution"
_READS = frozenset({"GET", "HEAD"})
#: Headers of a task's request that an answer depends on.
_PASSED_ON = ("airflow-api-version", "accept")
#: The parts of ``/xcoms/DAG/RUN/TASK/KEY``.
_XCOM_PARTS = 5

#: The end of a request for several XComs.
_SEQUENCE = re.compile(r"/(slice|item/-?[0-9]+)$", re.ASCII)
_OK = 200

_DELETED = object()


def is_value(kept: object) -> bool:
    """Return whether a kept write is a value, and not a deletion."""
    return kept is not _DELETED


class Answer(Protocol):
    """The answer of Airflow to a read."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def body(self) -> bytes: ...


@dataclass(frozen=True)
class Given:
    """The answer of the stand-in itself."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


#: Answers a read: method, path with its query, headers.
Reads = Callable[[str, str, Mapping[str, str]], Answer]


@dataclass
class Kept:
    """The writes of the task. None of them reaches Airflow."""

    states: list[dict[str, Any]] = field(default_factory=list)
    """Bodies of the state changes, in order."""
    xcoms: dict[tuple[str, str, str, str, int], Any] = field(default_factory=dict)
    """(DAG, run, task, key, map index) → value."""
    values: dict[str, Any] = field(default_factory=dict)
    """Path of a variable or a stored state → value."""
    others: list[str] = field(default_factory=list)
    """Other writes, for the user."""

    @property
    def final_state(self) -> str:
        """The last state of the task; empty without one."""
        return str(self.states[-1].get("state") or "") if self.states else ""


@dataclass(frozen=True)
class Instance:
    """The task instance that the stand-in serves."""

    dag_id: str
    run_id: str
    task_id: str
    map_index: int = -1
    map_indexes: Sequence[int] = (-1,)
    """The instances of the task in its run."""


class StandIn:
    """The stand-in for one task, as long as a ``with`` block. It answers requests with its token alone."""

    def __init__(self, instance: Instance, context: Mapping[str, Any], reads: Reads) -> None:
        """``context`` is the answer to the start of the task."""
        self.token = secrets.token_urlsafe(32)
        self.kept = Kept()
        self.context = dict(context)
        self._instance = instance
        self._reads = reads
        self._lock = threading.Lock()
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The URL of the Execution API for the task."""
        assert self._server is not None, "it listens within its with block"
        return f"http://127.0.0.1:{self._server.server_port}{PREFIX}/"

    def __enter__(self) -> StandIn:
        self._server = _Server(("127.0.0.1", 0), _handler_of(self))
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="modalflow-stand-in", daemon=True
        )
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def resume(self, next_call: Mapping[str, Any]) -> None:
        """Let the next start of the task continue after a deferral, with these parts of its answer."""
        with self._lock:
            self.context |= next_call

    def end(self, state: str, xcoms: Mapping[str, Any]) -> None:
        """Keep the end of the task by its trigger."""
        mine = self._instance
        with self._lock:
            for key, value in xcoms.items():
                self.kept.xcoms[mine.dag_id, mine.run_id, mine.task_id, key, mine.map_index] = value
            self.kept.states.append({"state": state})

    def refusal(self, headers: Mapping[str, str]) -> Given | None:
        """Return the answer to a request without the task's token; None if it has the token. Needs no body."""
        given = headers.get("authorization", "").removeprefix("Bearer ")
        if hmac.compare_digest(given.encode(), self.token.encode()):
            return None
        return _refused(403, "Invalid auth token")

    def answer(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Return the answer to a request of the task."""
        if (refused := self.refusal(headers)) is not None:
            return refused
        parts = urlsplit(target)
        path = "/" + parts.path.removeprefix(PREFIX).lstrip("/")
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        with self._lock:
            if method not in _READS:
                return self._write(method, path, query, _json_of(body))
            if (known := self._known(method, path, query)) is not None:
                return known
        passed = {name: value for name in _PASSED_ON if (value := headers.get(name))}
        return self._reads(method, f"{path}?{parts.query}" if parts.query else path, passed)

    # --- writes ---

    def _write(self, method: str, path: str, query: Mapping[str, str], body: Any) -> Answer:
        kind, _, rest = path.strip("/").partition("/")
        if kind == "task-instances":
            return self._task_instance(rest.rpartition("/")[2], body)
        if kind == "xcoms" and (asked := XComRequest.read(path, query)) is not None:
            key = asked.stored(-1 if asked.map_index is None else asked.map_index)
            self.kept.xcoms[key] = _DELETED if method == "DELETE" else body
            return _given(200 if method == "DELETE" else 201, "kept by modalflow replay")
        if kind in ("variables", "store"):
            # The body of a variable has another name for it than the answer.
            value = body.get("value", body.get("val")) if isinstance(body, dict) else body
            self.kept.values[_place(path, query)] = _DELETED if method == "DELETE" else value
            return _given(201, {"message": "kept by modalflow replay"}) if kind == "variables" else Given(204)
        if kind == "dag-runs" and method == "POST":
            what = "the clearing of" if path.endswith("/clear") else "the start of"
            self.kept.others.append(f"{what} DAG run {unquote(rest.removesuffix('/clear')).replace('/', ' ', 1)}")
            return Given(204)
        self.kept.others.append(f"{method} {path}")
        return _refused(403, f"modalflow replay changes nothing in Airflow, and has no answer to {method} {path}")

    def _task_instance(self, action: str, body: Any) -> Answer:
        if action == "run":
            return _given(200, self.context)
        if action == "state" and isinstance(body, dict):
            self.kept.states.append(body)
        if action == "skip-downstream" and isinstance(body, dict):
            names = ", ".join(str(each) for each in body.get("tasks") or ())
            self.kept.others.append(f"the skipping of {names}")
        return _given(201, "OK") if action == "rtif" else Given(204)

    # --- reads of the task's own writes ---

    def _known(self, method: str, path: str, query: Mapping[str, str]) -> Answer | None:
        """Return the answer from the task's own writes; None if only Airflow can answer."""
        if (place := _place(path, query)) in self.kept.values:
            value = self.kept.values[place]
            if value is _DELETED:
                return _missing("It was deleted in this replay")
            return _given(200, {"key": unquote(path.rpartition("/")[2]), "value": value})
        asked = XComRequest.read(path, query) if path.startswith("/xcoms/") else None
        if asked is None or "include_prior_dates" in query:
            return None
        if not self._is_own(asked):
            given = self.kept.xcoms.get(asked.stored(-1 if asked.map_index is None else asked.map_index))
            return _given(200, {"key": asked.key, "value": given}) if method == "GET" and given is not None else None
        return asked.answer(method, query, lambda: self._own_values(asked))

    def _is_own(self, asked: XComRequest) -> bool:
        mine = self._instance
        return (asked.dag_id, asked.run_id, asked.task_id) == (mine.dag_id, mine.run_id, mine.task_id)

    def _own_values(self, asked: XComRequest) -> dict[int, Any]:
        """Return the XComs of all instances of the task, by map index: Airflow clears those of a try at its start."""
        found: dict[int, Any] = {}
        for index in sorted(self._instance.map_indexes):
            key = asked.stored(index)
            if key in self.kept.xcoms:
                if self.kept.xcoms[key] is not _DELETED:
                    found[index] = self.kept.xcoms[key]
            elif index != self._instance.map_index:
                path = "/".join(quote(part, safe="") for part in key[:4])
                answer = self._reads("GET", f"/xcoms/{path}?map_index={index}", {})
                if answer.status == _OK:
                    found[index] = _json_of(answer.body)["value"]
        return found


@dataclass(frozen=True)
class XComRequest:
    """A request for one XCom, or for those of all instances of a task."""

    dag_id: str
    run_id: str
    task_id: str
    key: str
    map_index: int | None
    """None if the request names none."""
    part: str = ""
    """``slice`` or ``item/N`` of a sequence; empty for one XCom."""

    @classmethod
    def read(cls, path: str, query: Mapping[str, str]) -> XComRequest | None:
        """Read ``/xcoms/DAG/RUN/TASK/KEY``; None for another path."""
        parts = path.strip("/").split("/", _XCOM_PARTS - 1)
        if len(parts) != _XCOM_PARTS or parts[0] != "xcoms":
            return None
        dag_id, run_id, task_id, key = map(unquote, parts[1:])
        sequence = _SEQUENCE.search(key)
        index = query.get("map_index", "")
        return cls(
            dag_id,
            run_id,
            task_id,
            key[: sequence.start()] if sequence else key,
            int(index) if index.removeprefix("-").isdecimal() else None,
            sequence[1] if sequence else "",
        )

    def stored(self, map_index: int) -> tuple[str, str, str, str, int]:
        """Return the XCom of an instance, as the key of ``Kept.xcoms``."""
        return (self.dag_id, self.run_id, self.task_id, self.key, map_index)

    def answer(self, method: str, query: Mapping[str, str], values: Callable[[], dict[int, Any]]) -> Answer:
        """Return the answer as Airflow's, from the XComs of all instances by map index."""
        found = values()
        if method == "HEAD":
            return Given(200, b"", {"content-range": f"map_indexes {len(found)}"})
        if self.part == "slice":
            bounds = (int(query[name]) if name in query else None for name in ("start", "stop", "step"))
            return _given(200, list(found.values())[slice(*bounds)])
        if self.part:
            number = int(self.part.rpartition("/")[2])
            present = -len(found) <= number < len(found)
            return _given(200, list(found.values())[number]) if present else _missing(f"There is no item {number}")
        index = -1 if self.map_index is None else self.map_index
        if index not in found:
            return _missing(f"XCom {self.key!r} is not there in this replay")
        return _given(200, {"key": self.key, "value": found[index]})


def _place(path: str, query: Mapping[str, str]) -> str:
    return "&".join([unquote(path), *(f"{name}={value}" for name, value in sorted(query.items()))])


def _json_of(body: bytes) -> Any:
    try:
        return json.loads(body) if body else None
    except ValueError:
        return None


def _given(status: int, body: object) -> Given:
    return Given(status, json.dumps(body).encode())


def _missing(why: str) -> Given:
    return _given(404, {"detail": {"reason": "not_found", "message": why}})


def _refused(status: int, why: str) -> Given:
    return _given(status, {"detail": why})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Pass over a task that is gone, for example after Ctrl-C; print any other error."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler_of(stand_in: StandIn) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            # A body is read for the task alone: any process of this machine can send one.
            answer: Answer | None = stand_in.refusal(headers)
            if answer is None:
                body = self.rfile.read(int(headers.get("content-length") or 0))
                answer = stand_in.answer(self.command, self.path, headers, body)
            else:
                self.close_connection = True
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            if self.close_connection:
                self.send_header("connection", "close")
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)

        do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing: the task's own log has its requests."""

    return Handler
