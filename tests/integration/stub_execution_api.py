"""A stand-in for Airflow's Execution API: enough for one supervised task, and it remembers what it was told.

The real API server needs a database and a scheduler; the acceptance tests have both. Here the worker is under test.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt

from modalflow.names import VERSION_PATH
from tests.airflows import AIRFLOW

_RUN_CONTEXT = {
    "dag_run": {
        "dag_id": "d",
        "run_id": "r",
        "logical_date": "2026-01-01T00:00:00Z",
        "data_interval_start": "2026-01-01T00:00:00Z",
        "data_interval_end": "2026-01-01T00:00:00Z",
        "run_after": "2026-01-01T00:00:00Z",
        "start_date": "2026-01-01T00:00:00Z",
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        # Older ones refuse what they do not know.
        **({"partition_key": None} if AIRFLOW >= (3, 2) else {}),
    },
    "max_tries": 0,
    "should_retry": False,
}


_CONNECTION = {"conn_id": "tested", "conn_type": "smtp", "host": "127.0.0.1", "port": 1}


@dataclass
class StubExecutionApi:
    """What the API was asked, and how it answers."""

    url: str = ""
    requests: list[tuple[str, str, Any]] = field(default_factory=list)
    started: dict[str, float] = field(default_factory=dict)
    """When each task instance asked to run, in seconds since the epoch."""
    refuse_run: tuple[int, dict[str, Any]] | None = None
    """Status and detail with which ``/run`` is refused."""
    run_takes: float = 0.0
    """Seconds before ``/run`` is answered."""
    connections: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What is not as in every other connection, by id."""
    variables: dict[str, str] = field(default_factory=dict)
    jwt_secret: str = ""
    """What tokens must be signed with; without one any token is accepted."""
    clock: float = 0.0
    """Seconds by which its clock is ahead."""
    version: str = ""
    """The Airflow that it says it is; without one it serves nothing but the Execution API."""
    modalflow: dict[str, Any] | None = None
    """What it reports of its modalflow; without one it has none of this project."""

    def states(self) -> list[str]:
        """The states that task instances were put into, in order."""
        return [body["state"] for _, path, body in self.requests if path.endswith("/state")]

    def hostnames(self) -> list[str]:
        return [body["hostname"] for _, path, body in self.requests if path.endswith("/run")]

    def refusal(self, method: str, authorization: str) -> tuple[int, Any] | None:
        """As Airflow 3.3 refuses a token that it does not accept."""
        if not self.jwt_secret or method != "PATCH":
            return None
        if not authorization:
            return 401, {"detail": "Missing auth token"}
        try:
            claims = jwt.decode(
                authorization.removeprefix("Bearer "),
                self.jwt_secret,
                ["HS512"],
                audience="urn:airflow.apache.org:task",
                options={"verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.InvalidTokenError:
            return 403, {"detail": "Invalid auth token"}
        now = time.time() + self.clock
        timely = claims["nbf"] - 10 <= now <= claims["exp"] + 10
        return None if timely else (403, {"detail": "Invalid auth token"})

    def answer(self, path: str, asked: Any) -> tuple[int, Any]:
        _, _, name = path.rpartition("/")
        if path == "/api/v2/version" and self.version:
            return 200, {"version": self.version, "git_version": None}
        if path == VERSION_PATH and self.modalflow is not None:
            return 200, self.modalflow
        if path.endswith("/run") and asked["unixname"] == "modalflow-doctor":
            return 404, {"detail": {"reason": "not_found", "message": "Task Instance not found"}}
        if path.endswith("/run"):
            self.started[path.split("/")[-2]] = time.time()
            return self.refuse_run or (200, _RUN_CONTEXT)
        if not path.startswith("/execution/"):
            return 404, {"detail": "Not Found"}
        if path == "/execution/health":
            return 200, {"status": "healthy"}
        if path.endswith("/connection"):
            return 200, _CONNECTION | self.connections.get("tested", {})
        if path.startswith("/execution/connections/"):
            nothing = {"schema": None, "login": None, "password": None, "extra": None}
            return 200, _CONNECTION | nothing | self.connections.get(name, {})
        if path.endswith("/breadcrumbs"):
            return 200, {"breadcrumbs": []}
        if path.startswith("/execution/variables/") and name in self.variables:
            return 200, {"key": name, "value": self.variables[name]}
        return (201, "OK") if "/xcoms/" in path or path.endswith("/rtif") else (204, None)


@contextmanager
def stub_execution_api() -> Iterator[StubExecutionApi]:
    """Serve on a free port of the loopback interface."""
    api = StubExecutionApi()

    class Handler(BaseHTTPRequestHandler):
        # A connection a request, so that no thread waits for the next one.
        protocol_version = "HTTP/1.0"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            path = self.path.split("?")[0]
            asked = json.loads(body) if body else None
            api.requests.append((self.command, path, asked))
            if path.endswith("/run"):
                time.sleep(api.run_takes)
            status, answer = api.refusal(self.command, self.headers.get("authorization") or "") or api.answer(
                path, asked
            )
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate((timestamp or time.time()) + api.clock, usegmt=True)

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    api.url = f"http://127.0.0.1:{server.server_port}/execution/"
    try:
        yield api
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def callback_workload(path: str, *, bundle: str, dag_file: str, **kwargs: Any) -> str:
    """An ExecuteCallback, as Airflow serialises it."""
    return json.dumps(
        {
            "type": "ExecuteCallback",
            "token": "secret-token",
            "dag_rel_path": dag_file,
            "bundle_info": {"name": bundle, "version": None},
            "log_path": "executor_callbacks/d/r/1.log",
            "callback": {
                "id": str(uuid.uuid4()),
                "fetch_method": "import_path",
                "data": {"path": path, "kwargs": kwargs},
            },
        }
    )


def connection_test_workload() -> str:
    """A TestConnection of a connection that nobody answers at, as Airflow serialises it."""
    return json.dumps(
        {
            "type": "TestConnection",
            "token": "secret-token",
            "connection_test_id": str(uuid.uuid4()),
            "connection_id": "tested",
            "timeout": 10,
        }
    )


def task_workload(
    task_id: str, *, bundle: str, dag_file: str, version: str | None = None, token: str = "secret-token"
) -> str:
    """An ExecuteTask of the DAG ``d``, as Airflow serialises it."""
    return json.dumps(
        {
            "type": "ExecuteTask",
            "token": token,
            "dag_rel_path": dag_file,
            "bundle_info": {"name": bundle, "version": version},
            "log_path": f"dag_id=d/run_id=r/task_id={task_id}/attempt=1.log",
            "ti": {
                "id": str(uuid.uuid4()),
                "dag_version_id": str(uuid.uuid4()),
                "task_id": task_id,
                "dag_id": "d",
                "run_id": "r",
                "try_number": 1,
                "map_index": -1,
                "pool_slots": 1,
                "queue": "default",
                "priority_weight": 1,
            },
        }
    )
