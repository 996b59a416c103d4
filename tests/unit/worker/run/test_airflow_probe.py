"""The inspection of Airflow in a container, for `modalflow doctor`."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from modalflow.airflow_compat.tokens import try_token
from modalflow.names import RELAY_HEADER
from modalflow.protocol.messages import Kind
from modalflow.protocol.probe import Question
from modalflow.worker.run import airflow_probe, airflow_view
from modalflow.worker.zygote.protocol import ForkRequest


def test_an_api_without_an_answer_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time limit is half of the inspection's: with a second request, the other checks would not be made."""

    def no_request(*_: Any) -> Any:
        raise AssertionError("a second request")

    monkeypatch.setattr(airflow_probe, "_execution_api", lambda *_: {"url": "u", "error": "ReadTimeout: timed out"})
    monkeypatch.setattr(airflow_probe, "_token", no_request)
    for name in ("_hostname", "_bundles", "_remote_logging"):
        monkeypatch.setattr(airflow_probe, name, lambda *_: {})
    monkeypatch.setattr(airflow_view, "steps", lambda _: ())
    file = tmp_path / "findings.json"
    question = Question("id", "token").to_json()
    airflow_probe.inspect_airflow(
        ForkRequest(id="1", kind=Kind.PROBE, log_file=str(file), log_root=str(tmp_path), env={}, workload=question)
    )
    assert json.loads(file.read_text())["token"] == {"error": "ReadTimeout: timed out"}


@contextmanager
def api(status: int, answer: dict[str, Any], headers: dict[str, str]) -> Iterator[tuple[str, list[str]]]:
    """Yield the URL of a server with one answer for everything, and its requests."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(f"{self.command} {self.path}")
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = json.dumps(answer).encode()
            self.send_response(status)
            for name, value in {
                "Content-Type": "application/json",
                "Content-Length": str(len(body)),
                **headers,
            }.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_PATCH = do_GET

        def log_message(self, *_: Any) -> None:
            """Write nothing to the test's output."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/execution/", requests
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_server_error_is_a_finding_and_not_repeated() -> None:
    """Airflow's client would repeat the request for minutes. Its HTTP library depends on Airflow's version."""
    with api(503, {"detail": "no worker"}, {}) as (url, requests):
        found = airflow_probe._execution_api(url, "")
        assert found["status"] == 503
        refused = try_token(url, "a token", "an-id")
    assert (refused.status, refused.accepted, refused.text) == (503, False, "no worker")
    assert requests.count("GET /execution/health") == 1
    assert requests.count("PATCH /execution/task-instances/an-id/run") == 1


def test_round_trips_over_a_relay_are_measured() -> None:
    with api(200, {"status": "healthy"}, {RELAY_HEADER: "0.5.0"}) as (url, requests):
        found = airflow_probe._execution_api(url, "https://airflow.example/execution/")
    assert (found["status"], found["relay"], found["url"]) == (200, "0.5.0", "https://airflow.example/execution/")
    assert len(found["round_trips"]) == requests.count("GET /execution/health") - 1 > 0
    assert found["round_trips"] == sorted(found["round_trips"])
