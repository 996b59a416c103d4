"""A small client of Airflow's public REST API: only the requests of a user's browser.

Owns the token and the shapes of the answers it uses. It never touches the metadata database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from modalflow.support.described import describe

# Airflow's names in its health report → the process of the stack.
HEALTH: Final[Mapping[str, str]] = {
    "metadatabase": "postgres",
    "scheduler": "scheduler",
    "triggerer": "triggerer",
    "dag_processor": "dag-processor",
}

# Events in Airflow's log for failures not reported by the task itself, with ModalExecutor's own first. Each of ours
# also has a long "state mismatch".
TROUBLES: Final = frozenset({"modal executor", "heartbeat timeout", "stuck in queued tries exceeded"})

#: Time for the restart of a killed server, in seconds.
PATIENCE: Final = 60.0
#: Also for a server with an error of its own.
PATIENCE_WHEN_ILL: Final = 5.0
POLL: Final = 0.25

# Parts of a structured log message with their own place in the line, or the same in every line of a task.
NOT_SHOWN: Final = frozenset(
    {"timestamp", "level", "event", "logger", "filename", "lineno", "loc", "chan", "sources", "error_detail"}
    | {"dag_id", "run_id", "task_id", "map_index", "try_number", "ti_id", "ti"}
)


class AirflowAPIError(RuntimeError):
    """Airflow refused a request. The message has the request and the answer."""


@dataclass(frozen=True)
class TaskInstance:
    """A task instance as the REST API shows it."""

    id: str
    run_id: str
    task_id: str
    map_index: int
    state: str | None
    try_number: int
    hostname: str
    queued: datetime | None
    started: datetime | None
    ended: datetime | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Self:
        """Read one out of the API's answer."""

        def when(name: str) -> datetime | None:
            return datetime.fromisoformat(answer[name]) if answer[name] else None

        return cls(
            id=answer["id"],
            run_id=answer["dag_run_id"],
            task_id=answer["task_id"],
            map_index=answer["map_index"],
            state=answer["state"],
            try_number=answer["try_number"],
            hostname=answer["hostname"] or "",
            queued=when("queued_when"),
            started=when("start_date"),
            ended=when("end_date"),
        )

    @property
    def label(self) -> str:
        """``task``, or ``task [3]`` where it is mapped."""
        return label(self.task_id, self.map_index)


def label(task_id: str, map_index: int | None) -> str:
    """``task``, or ``task [3]`` where it is mapped."""
    return task_id if map_index is None or map_index < 0 else f"{task_id} [{map_index}]"


class AirflowAPI:
    """A client of one API server. Its simple auth manager makes every user an admin."""

    def __init__(self, url: str, while_away: Callable[[], object] = lambda: None) -> None:
        """``while_away`` is called now and then while the server does not answer; it may raise to end the waiting."""
        self._while_away = while_away
        self._http = httpx.Client(base_url=url, timeout=30.0, trust_env=False)
        self._token: str | None = None

    def close(self) -> None:
        """Give up its connections."""
        self._http.close()

    def unhealthy(self) -> list[str]:
        """Return the unhealthy processes of the stack; without an API server, their state is unknown."""
        try:
            answer = self._http.get("/api/v2/monitor/health", timeout=5.0)
            health = answer.raise_for_status().json()
        except (httpx.HTTPError, ValueError):
            return ["api-server"]
        return [process for name, process in HEALTH.items() if (health.get(name) or {}).get("status") != "healthy"]

    def warm_up(self) -> bool:
        """Build the Execution API through its first request. Return False if no server answers yet.

        This takes four seconds to more than ten, and blocks all other requests. Otherwise the first task would pay for
        it.
        """
        try:
            self._http.get("/execution/health", timeout=60.0)
        except httpx.ConnectError:
            return False
        except httpx.HTTPError:
            # Whether it is well is another question.
            return True
        return True

    def dag_is_known(self, dag_id: str) -> bool:
        """Return whether the DAG processor has parsed the DAG and the API can run it."""
        answer = self.request("GET", f"dags/{quote(dag_id)}", missing_is_fine=True)
        return answer.status_code == 200

    def import_errors(self) -> dict[str, str]:
        """Return import errors by file."""
        errors = self.request("GET", "importErrors").json()["import_errors"]
        return {error["filename"]: error["stack_trace"] for error in errors}

    def set_variable(self, key: str, value: str) -> None:
        """Create a Variable."""
        self.request("POST", "variables", json={"key": key, "value": value})

    def set_connection(self, conn_id: str, conn_type: str, **fields: object) -> None:
        """Create a Connection."""
        self.request("POST", "connections", json={"connection_id": conn_id, "conn_type": conn_type, **fields})

    def unpause(self, dag_id: str) -> None:
        """Let the scheduler run it."""
        self.request("PATCH", f"dags/{quote(dag_id)}", json={"is_paused": False})

    def trigger(self, dag_id: str, logical_date: datetime, conf: Mapping[str, object] | None = None) -> str:
        """Start a DAG run and return its id."""
        body = {"logical_date": logical_date.isoformat(), "conf": dict(conf or {})}
        return str(self.request("POST", f"dags/{quote(dag_id)}/dagRuns", json=body).json()["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """Return the state of a DAG run."""
        return str(self.request("GET", f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}").json()["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[TaskInstance]:
        """Its task instances, the mapped ones each, in the order of their start."""
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances"
        answer = self.request("GET", path, params={"limit": 1000}).json()
        instances = [TaskInstance.of(instance) for instance in answer["task_instances"]]
        return sorted(instances, key=lambda ti: (ti.started is None, ti.started, ti.task_id, ti.map_index))

    def xcom(self, dag_id: str, run_id: str, task_id: str, key: str = "return_value") -> object:
        """Return the value pushed by a task."""
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(task_id)}/xcomEntries/{quote(key)}"
        return self.request("GET", path).json()["value"]

    def log(self, dag_id: str, run_id: str, instance: TaskInstance, try_number: int | None = None) -> list[str]:
        """Return the task's log as in the UI, one line per message; by default for its last try."""
        number = instance.try_number if try_number is None else try_number
        path = f"dags/{quote(dag_id)}/dagRuns/{quote(run_id)}/taskInstances/{quote(instance.task_id)}/logs/{number}"
        params = {"map_index": instance.map_index, "full_content": True}
        answer = self.request("GET", path, params=params, headers={"accept": "application/json"}).json()
        return list(_lines(answer["content"]))

    def events(self, dag_id: str, run_id: str) -> list[str]:
        """Return Airflow's event log of a DAG run, oldest first: ``event: details``."""
        params: dict[str, object] = {"dag_id": dag_id, "run_id": run_id, "limit": 100, "order_by": "event_log_id"}
        entries = self.request("GET", "eventLogs", params=params).json()["event_logs"]
        return [f"{entry['event']}: {entry['extra'] or ''}" for entry in entries]

    def troubles(self, dag_id: str, run_id: str) -> list[str]:
        """Return the reasons for tries ended from outside, oldest first: ``task, try n: reason``."""
        params: dict[str, object] = {"dag_id": dag_id, "run_id": run_id, "limit": 100, "order_by": "event_log_id"}
        return [
            f"{label(entry['task_id'], entry['map_index'])}, try {entry['try_number']}: {entry['extra']}"
            for entry in self.request("GET", "eventLogs", params=params).json()["event_logs"]
            if entry["event"] in TROUBLES
        ]

    def request(
        self,
        method: str,
        path: str,
        *,
        missing_is_fine: bool = False,
        headers: Mapping[str, str] | None = None,
        **how: Any,
    ) -> httpx.Response:
        """Ask for ``path`` below the API's root; AirflowAPIError where Airflow refuses. ``how`` is httpx's."""
        if self._token is None:
            self._token = str(_checked(self._send("GET", "/auth/token")).json()["access_token"])
        headers = {"authorization": f"Bearer {self._token}", **(headers or {})}
        answer = self._send(method, f"/api/v2/{path}", headers=headers, **how)
        if answer.status_code == 404 and missing_is_fine:
            return answer
        return _checked(answer)

    def _send(self, method: str, path: str, **how: Any) -> httpx.Response:
        """Send a request; again where the server is away or not itself, and cannot have acted on it."""
        repeatable: type[httpx.TransportError] = httpx.TransportError if method == "GET" else httpx.ConnectError
        began = time.monotonic()
        deadline = began + PATIENCE
        while True:
            try:
                answer = self._http.request(method, path, **how)
                # It may get a reason in a moment.
                ill = answer.is_server_error and method == "GET" and time.monotonic() < began + PATIENCE_WHEN_ILL
                if not ill:
                    return answer
            except httpx.TransportError as error:
                if not isinstance(error, repeatable) or time.monotonic() > deadline:
                    raise AirflowAPIError(
                        f"Airflow's API at {self._http.base_url} did not answer {method} {path}: {describe(error)}"
                    ) from error
            self._while_away()
            time.sleep(POLL)


def _checked(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    request = answer.request
    raise AirflowAPIError(
        f"Airflow's API answered {answer.status_code} to {request.method} {request.url.path}: {answer.text[:500]}"
    )


def _lines(content: list[object]) -> Iterator[str]:
    """Flatten structured log messages into readable lines."""
    for message in content:
        if not isinstance(message, dict):
            yield str(message)
            continue
        when = str(message.get("timestamp") or "")[11:19]
        level = str(message.get("level") or "").upper()
        rest = {key: value for key, value in message.items() if key not in NOT_SHOWN}
        details = " ".join(f"{key}={json.dumps(value, default=str)}" for key, value in rest.items())
        yield " ".join(part for part in (when, level, str(message.get("event", "")), details) if part)
        for source in message.get("sources") or ():
            yield f"    {source}"
        for error in message.get("error_detail") or ():
            yield f"    {error.get('exc_type')}: {error.get('exc_value')}"
