"""The engine's real objects around a played API of Modal's, without its thread."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from modalflow.airflow_compat import configuration
from modalflow.airflow_home.host_home import HostHome
from modalflow.config.settings import Settings
from modalflow.executor.lifecycle.airflow_state import StateDatabase
from modalflow.executor.lifecycle.call import Call
from modalflow.executor.mailbox import SubmitRequest, UpdateKind
from modalflow.executor.reporting.publisher import Identity
from modalflow.executor.submission.resources import Resources
from modalflow.executor.wiring import Wiring
from modalflow.protocol.messages import Deployment, Kind, Submission


class Observer:
    """Counts what a ModalApi notifies it of."""

    def __init__(self) -> None:
        self.rpcs = self.refusals = 0

    def on_rpc(self, rpc: str, error: BaseException | None) -> None:
        self.rpcs += 1

    def on_refused_credentials(self) -> None:
        self.refusals += 1


def wired(
    api: Any,
    *,
    database: StateDatabase | None = None,
    identity: Identity | None = None,
    loop: asyncio.AbstractEventLoop | None = None,
    home: HostHome | None = None,
    **settings: Any,
) -> Wiring:
    """Return the objects, connected to an API that answers as the test says. By default they use the running loop."""
    wanted = dataclasses.replace(Settings.read(configuration.own_conf()), **settings)

    def open_api(observer: object) -> Any:
        raise AssertionError("a test connects by itself")

    loop = loop or asyncio.get_running_loop()
    wiring = Wiring(wanted, open_api, identity or Identity(), database, "default", loop, home)
    wiring.connection.made(api, Deployment("", 1, "", "", ("default", "gpu"), {}, 0.0))
    return wiring


def request(work_id: str, kind: Kind = Kind.WORKLOAD, profile: str = "default", key: Any = None) -> SubmitRequest:
    """Return a request whose key, log and label are its work id."""
    draft = Submission(work_id, kind, work_id, "", work_id, command=("true",) if kind is Kind.COMMAND else None)
    return SubmitRequest(work_id if key is None else key, draft, Resources(), None, profile)


def submitted(wiring: Wiring, work_id: str, function_call_id: str = "", **options: Any) -> Call:
    """Return a call that Modal has accepted."""
    call = Call.accepted(request(work_id, **options), 0.0)
    call.placed(dataclasses.replace(call.request.draft, partition=wiring.partition), Resources())  # type: ignore[union-attr]
    call.spawning()
    call.submitted(function_call_id or f"fc-{work_id}", 0.0)
    wiring.calls.add(call)
    return call


def kinds(wiring: Wiring) -> list[UpdateKind]:
    """Return what kinds of updates wait for the scheduler's thread."""
    return [update.kind for update in wiring.outbox.updates]


def notes(wiring: Wiring) -> list[tuple[str, str]]:
    """Return the lines that are on their way to logs: (log path, text)."""
    return [(line.log_path, json.loads(line.content)["event"]) for line in wiring.notes._waiting]
