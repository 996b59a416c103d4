"""The Task SDK's client of the Execution API, for single requests."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


def http_library() -> ModuleType:
    """Return the module of the HTTP library under Airflow's client: httpx, from Airflow 3.4 on httpx2.

    Both are installed with Airflow 3.4, but a client of the one accepts neither transports nor errors of the other.
    """
    from airflow.sdk.api.client import Client

    library = Client.__base__
    assert library is not None
    return sys.modules[library.__module__.partition(".")[0]]


def request_once(client: Any, method: str, path: str, **options: Any) -> Any:
    """Return the response of one request of a task's client, with its certificates, proxies and token.

    The client's own ``request`` repeats a failed one for minutes. Raises the errors of `http_library`;
    ``options`` are those of its ``Client.request``.
    """
    return http_library().Client.request(client, method, path, **options)
