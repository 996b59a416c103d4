"""The Airflow part of a probe: what a task would find in this container of Airflow, its API, DAG bundles and settings.

Runs in a process forked from the zygote, with the environment of a task; imports Airflow there. Writes its findings
after each step, because one of the steps may hang.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from modalflow.config.urls import without_user
from modalflow.names import RELAY_HEADER, RELAYED_URL_VARIABLE
from modalflow.protocol.api_servers import TIMEOUT, about
from modalflow.protocol.messages import State
from modalflow.protocol.probe import Question
from modalflow.support.described import describe
from modalflow.worker.environment import has_remote_logging
from modalflow.worker.run import airflow_view
from modalflow.worker.run.api_errors import token_refusal
from modalflow.worker.zygote.protocol import ForkRequest, Outcome

#: How many requests are timed, if they go over a relay.
_ROUND_TRIPS = 20
#: The most DAG files that are counted.
_MOST_FILES = 10_000
#: Seconds after which a server that was busy has another date in its answers.
_DATE_PAUSE = 1.5


def inspect_airflow(request: ForkRequest) -> Outcome:
    """Write the findings to the request's file, as JSON."""
    from airflow import __version__

    findings: dict[str, Any] = {"version": __version__}

    def add(name: str, value: object) -> None:
        findings[name] = value
        Path(request.log_file).write_text(json.dumps(findings))

    question = Question.from_json(request.workload) if request.workload else None
    url = request.env.get("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "")
    add("hostname", _hostname())
    api = _execution_api(url, request.env.get(RELAYED_URL_VARIABLE, ""))
    add("execution_api", api)
    if question is not None and question.token:
        # A second request would wait as long for the same reason, and leave no time for the other checks.
        add("token", {"error": api["error"]} if "error" in api else _token(question, url))
    add("bundles", _bundles())
    add("remote_logging", _remote_logging(request.env))
    for name, step in airflow_view.steps(question or Question()):
        add(name, airflow_view.inspected(step))
    return Outcome(State.SUCCESS, 0)


def _hostname() -> dict[str, str]:
    try:
        from airflow.utils.net import get_hostname

        return {"name": get_hostname()}  # type: ignore[no-untyped-call]  # Airflow's own is not annotated.
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"error": _described(error)}


def _execution_api(url: str, relayed: str) -> dict[str, Any]:
    """Request the API's health as a task's client does, with its certificates and proxies; no retries and no token.

    ``relayed`` is the API's URL on the host if the request goes over the relay.
    """
    if not url:
        return {"url": "", "error": "[core] execution_api_server_url is not set in the container"}
    began = time.monotonic()
    try:
        from airflow.sdk.api.client import Client

        from modalflow.airflow_compat.task_sdk.api_client import request_once

        client: Any = Client(base_url=url, token="")
        with client:
            answer = request_once(client, "GET", "health", timeout=TIMEOUT)
            found: dict[str, Any] = {"status": answer.status_code, "text": answer.text[:200]}
            if relay := answer.headers.get(RELAY_HEADER):
                found |= {"relay": relay[:80], "round_trips": _round_trips(client)}
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        response = getattr(error, "response", None)
        found = {"error": _described(error)}
        if response is not None:
            found = {"status": response.status_code, "text": ""}
    found |= about(url) if "error" not in found and "relay" not in found else {"version": ""}
    return {"url": without_user(relayed or url), "seconds": round(time.monotonic() - began, 4), **found}


def _round_trips(client: Any) -> list[float]:
    """Return the seconds of some small requests, shortest first."""
    from modalflow.airflow_compat.task_sdk.api_client import request_once

    seconds = []
    for _ in range(_ROUND_TRIPS):
        began = time.monotonic()
        request_once(client, "GET", "health", timeout=TIMEOUT)
        seconds.append(round(time.monotonic() - began, 4))
    return sorted(seconds)


def _token(question: Question, url: str) -> dict[str, Any]:
    """Return whether the API accepts the doctor's token."""
    from modalflow.airflow_compat.tokens import try_token

    began, asked_at = time.monotonic(), time.time()
    try:
        answer = try_token(url, question.token, question.id)
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"error": _described(error)}
    refused = token_refusal(answer.status, answer.text, question.token, answer.date)
    return {
        "accepted": answer.accepted,
        "status": answer.status,
        "text": answer.text[:200],
        "clock": _seconds_ahead(answer.date, asked_at) and _seconds_ahead_again(url, question),
        "cause": refused.cause.value if refused else "",
        "said": refused.detail if refused else "",
        "seconds": round(time.monotonic() - began, 4),
    }


def _seconds_ahead_again(url: str, question: Question) -> float:
    """Ask again: a server that was busy may answer at once with the date of the time before."""
    from modalflow.airflow_compat.tokens import try_token

    time.sleep(_DATE_PAUSE)
    asked_at = time.time()
    try:
        return _seconds_ahead(try_token(url, question.token, question.id).date, asked_at)
    except Exception:  # noqa: BLE001  The first answer counts for everything else.
        return 0.0


def _seconds_ahead(date: str, asked_at: float) -> float:
    """Return how far the API server's clock is ahead of this container's, beyond what the request can have taken."""
    try:
        there = parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError):
        return 0.0
    # The header has whole seconds.
    behind, ahead = asked_at - (there + 1), there - time.time()
    return round(ahead if ahead > 0 else -behind if behind > 0 else 0.0, 1)


def _remote_logging(env: Mapping[str, str]) -> dict[str, str]:
    """Return the handler that uploads task logs; nothing if the deployment has no remote logging."""
    if not has_remote_logging(env):
        return {}
    try:
        from airflow.sdk.log import load_remote_log_handler

        handler = load_remote_log_handler()
        return {"handler": type(handler).__name__ if handler is not None else ""}
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"error": _described(error)}


def _bundles() -> list[dict[str, Any]]:
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        from modalflow.airflow_compat.dag_bundles import bundle_names

        manager: Any = DagBundlesManager()  # type: ignore[no-untyped-call]  # Airflow's own is not annotated.
        names = bundle_names(manager)
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return [{"name": "", "error": _described(error)}]
    return [_bundle(manager, name) for name in names]


def _bundle(manager: Any, name: str) -> dict[str, Any]:
    began = time.monotonic()
    try:
        bundle = manager.get_bundle(name)
        bundle.initialize()
        folder = Path(bundle.path)
        found: dict[str, Any] = {"name": name, "path": str(folder), "kind": type(bundle).__name__}
        if not folder.is_dir():
            return found | {"error": f"there is no folder {folder}"}
        files = 0
        for files, _ in enumerate(folder.rglob("*.py"), 1):
            if files == _MOST_FILES:
                break
        return found | {"files": files, "seconds": round(time.monotonic() - began, 3)}
    except Exception as error:  # noqa: BLE001  Any error is a finding.
        return {"name": name, "error": _described(error), "connection": _connection_of(manager, name)}


def _connection_of(manager: Any, name: str) -> str:
    """Return the Airflow connection of a bundle, if any: a task requests it from Airflow's API with its own token."""
    kwargs: dict[str, Any] = getattr(manager._bundle_config.get(name), "kwargs", {})
    return next((str(value) for key, value in kwargs.items() if key.endswith("conn_id") and value), "")


def _described(error: Exception) -> str:
    return describe(error)[:500]
