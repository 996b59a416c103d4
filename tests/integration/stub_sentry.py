"""A stand-in for Sentry: it takes what its SDK sends, and remembers it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StubSentry:
    """Where a DSN points to, and what came there."""

    dsn: str = ""
    envelopes: list[str] = field(default_factory=list)


@contextmanager
def stub_sentry() -> Iterator[StubSentry]:
    """Take envelopes on a free port of the loopback interface."""
    sentry = StubSentry()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            zipped = self.headers.get("content-encoding") == "gzip"
            sentry.envelopes.append((gzip.decompress(body) if zipped else body).decode())
            self.send_response(200)
            self.send_header("content-length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, format: str, *args: Any) -> None:
            """Stay quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    sentry.dsn = f"http://public@127.0.0.1:{server.server_port}/1"
    try:
        yield sentry
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
