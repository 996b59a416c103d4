"""Small servers on loopback for what Airflow sends away: spans over OTLP/HTTP, StatsD datagrams, and e-mails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, HTTPServer
from socketserver import BaseRequestHandler, BaseServer, StreamRequestHandler, ThreadingTCPServer, UDPServer
from threading import Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.support import wait_until


@dataclass(frozen=True)
class Span:
    """A span, with its identifiers in hexadecimal."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    service: str


@dataclass
class Received:
    """Everything that arrived so far."""

    spans: list[Span] = field(default_factory=list)
    datagrams: list[str] = field(default_factory=list)
    mails: list[str] = field(default_factory=list)
    trace_port: int = 0
    statsd_port: int = 0
    smtp_port: int = 0

    def span(self, name: str) -> Span:
        """Return the one span of that name, as soon as it arrives."""
        (span,) = wait_until(lambda: [each for each in self.spans if each.name == name], 30.0, f"the span {name}")
        return span

    def mail(self, words: str) -> str:
        """Return the one e-mail with these words, as soon as it arrives."""
        (mail,) = wait_until(lambda: [each for each in self.mails if words in each], 15.0, f"a mail about {words}")
        return mail


@contextmanager
def receiving() -> Iterator[Received]:
    """Serve all three on free ports."""
    received = Received()
    with (
        HTTPServer(("127.0.0.1", 0), _traces(received)) as traces,
        UDPServer(("127.0.0.1", 0), _datagrams(received)) as statsd,
        ThreadingTCPServer(("127.0.0.1", 0), _mails(received)) as smtp,
        _serving(traces),
        _serving(statsd),
        _serving(smtp),
    ):
        received.trace_port, received.statsd_port = traces.server_address[1], statsd.server_address[1]
        received.smtp_port = smtp.server_address[1]
        yield received


@contextmanager
def _serving(server: BaseServer) -> Iterator[None]:
    thread = Thread(target=server.serve_forever, name=type(server).__name__, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()


def _traces(received: Received) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                received.spans += _spans_in(body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def _spans_in(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                ids = (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex())
                yield Span(span.name, *ids, service=attributes.get("service.name", ""))


def _datagrams(received: Received) -> type[BaseRequestHandler]:
    class Handler(BaseRequestHandler):
        def handle(self) -> None:
            data, _ = self.request
            received.datagrams += data.decode().splitlines()

    return Handler


def _mails(received: Received) -> type[StreamRequestHandler]:
    class Handler(StreamRequestHandler):
        def handle(self) -> None:
            self._answer("220 ready")
            while line := self.rfile.readline().decode().strip().upper():
                if line == "DATA":
                    self._answer("354 go on")
                    received.mails.append(self._message())
                self._answer("221 bye" if line == "QUIT" else "250 ok")
                if line == "QUIT":
                    return

        def _answer(self, line: str) -> None:
            self.wfile.write(f"{line}\r\n".encode())

        def _message(self) -> str:
            lines = []
            while (line := self.rfile.readline()) != b".\r\n":
                lines.append(line)
            parts = message_from_bytes(b"".join(lines)).walk()
            return "\n".join(bytes(text).decode() for part in parts if (text := part.get_payload(decode=True)))

    return Handler
