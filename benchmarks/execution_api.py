"""An Execution API that accepts everything at once: what the worker costs, without what Airflow costs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_MOMENT = "2026-01-01T00:00:00Z"
_RUN = {
    "dag_run": {
        "dag_id": "d",
        "run_id": "r",
        **dict.fromkeys(("logical_date", "data_interval_start", "data_interval_end", "run_after"), _MOMENT),
        "start_date": _MOMENT,
        "end_date": None,
        "run_type": "manual",
        "state": "running",
        "consumed_asset_events": [],
        "partition_key": None,
    },
    "max_tries": 0,
    "should_retry": False,
}


@dataclass
class ExecutionApi:
    """A running one."""

    url: str = ""
    started: dict[str, float] = field(default_factory=dict)
    """When the task instances asked to run, in seconds since the epoch."""

    def answer(self, path: str) -> tuple[int, Any]:
        """Return the status and the body for a request."""
        if path.endswith("/run"):
            self.started[path.split("/")[-2]] = time.time()
            return 200, _RUN
        if path.endswith("/breadcrumbs"):
            return 200, {"breadcrumbs": []}
        return (201, "OK") if "/xcoms/" in path or path.endswith("/rtif") else (204, None)


@contextmanager
def execution_api() -> Iterator[ExecutionApi]:
    """Serve on a free port of the loopback interface."""
    api = ExecutionApi()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.0"

        def handle_any(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            status, answer = api.answer(self.path.split("?")[0])
            body = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

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
