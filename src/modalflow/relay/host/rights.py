"""The rights of containers: the Execution API's paths, methods and headers, and nothing else of its server.

The relay adds no rights. The task's token decides, in the API server.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import unquote

from modalflow.relay.messages import Request

_READ = frozenset({"GET", "HEAD"})
_ALL = _READ | {"POST", "PUT", "PATCH", "DELETE"}

#: The first part of a path of the Execution API, in every supported version of Airflow → its methods.
ROUTES = {
    "asset-events": _READ,
    "assets": _READ,
    "connection-tests": _READ | {"PATCH"},
    "connections": _READ,
    "dag-runs": _READ | {"POST"},
    "dags": _READ,
    "health": _READ,
    "hitlDetails": _READ | {"POST", "PATCH"},
    "store": _ALL,
    "task-instances": _READ | {"PATCH", "PUT", "POST"},
    "task-reschedules": _READ,
    "variables": _READ | {"PUT", "DELETE"},
    "xcoms": _ALL,
}

_REQUEST_HEADERS = frozenset(
    {
        "accept",
        "airflow-api-version",
        "authorization",
        "baggage",
        "content-type",
        "correlation-id",
        "traceparent",
        "tracestate",
        "user-agent",
    }
)
_ANSWER_HEADERS = frozenset(
    {
        "airflow-api-version",
        # The number of an XCom's values.
        "content-range",
        "content-type",
        "correlation-id",
        "date",
        "refreshed-api-token",
        "retry-after",
    }
)

_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*")
#: Characters of a path and a query, as a client encodes them.
_TARGET = re.compile(r"[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|]{1,8000}")
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


def refusal(request: Request) -> str:
    """Return why a request may not pass; empty if it may."""
    path, _, _ = request.target.partition("?")
    if not _TARGET.fullmatch(request.target) or _STRAY_PERCENT.search(request.target):
        return "its path has unexpected characters"
    first, *others = path.split("/")
    methods = ROUTES.get(first)
    if methods is None:
        return f"the Execution API has no path {first[:60]!r}, as far as modalflow's relay knows"
    if request.method not in methods:
        return f"the Execution API has no method {request.method[:20]!r} for {first!r}"
    if any(_leaves(part) for part in others):
        return "its path leads out of the Execution API"
    return ""


def _leaves(part: str) -> bool:
    """Return whether a part of a path could lead elsewhere, however often a server decodes it."""
    for _ in range(4):
        decoded = unquote(part)
        if any(each in (".", "..") for each in re.split(r"[/\\]", decoded)) or "\0" in decoded:
            return True
        if decoded == part:
            return False
        part = decoded
    return True


def request_headers(headers: Iterable[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return the headers for the API server."""
    return _kept(headers, _REQUEST_HEADERS)


def answer_headers(headers: Iterable[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return the headers for the container."""
    return _kept(headers, _ANSWER_HEADERS)


def _kept(headers: Iterable[tuple[str, str]], names: frozenset[str]) -> Sequence[tuple[str, str]]:
    return [(name, value) for name, value in headers if name.lower() in names and _VALUE.fullmatch(value)]
