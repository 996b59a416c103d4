"""Airflow's real API server with the plugin, as a process: 10,000 pieces of work, of which users see some.

python -m tests.browser.server FOLDER SOCKET   serves until its standard input ends; prints a token for each user
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import TextIO

import uvicorn
from airflow.api_fastapi import app as airflow_app
from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
from airflow.models.dag import DagModel
from airflow.utils.session import create_session
from sqlalchemy import update

from modalflow.names import TaskTry
from modalflow.operations.inventory import Inventory, ProfileState
from modalflow.protocol.snapshot import InFlight, Snapshot
from tests.browser.examples import PROFILES, WAITS
from tests.unit.ui.server import api_server

#: The user who sees everything, and two who may read one DAG each.
USERS = {"root": "ADMIN", "ada": "USER", "eve": "USER"}

EXECUTORS, CALLS = 5, 2_000


def inventory(now: float) -> Inventory:
    """Return the state of five executors with all the calls that they list."""
    return Inventory(
        now, [_snapshot(number, now) for number in range(EXECUTORS)], [], [ProfileState(name, 4) for name in PROFILES]
    )


def _snapshot(number: int, now: float) -> Snapshot:
    return Snapshot(
        f"p{number}",
        f"scheduler-{number}",
        4711,
        started_at=now - 90_000,
        published_at=now,
        version="0.5.0",
        calls=[_call(number * CALLS + index, now) for index in range(CALLS)],
    )


def _call(number: int, now: float) -> InFlight:
    dag = "secret" if number % 100 == 99 else "losses"
    waits = number % 3 == 2
    return InFlight(
        f"w{number}",
        f"{dag}.once run r1 map index {number} try 1",
        "waiting" if waits else "submitted",
        now - number,
        "" if waits else f"fc-01K{number:05d}",
        PROFILES[number // 7 % len(PROFILES)],
        0 if waits else 1,
        TaskTry(dag, "once", "r1", number, 1),
        WAITS[number % len(WAITS)] if waits else "",
    )


def main() -> None:
    """Serve."""
    # Airflow logs to standard output, and no one reads on.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with api_server(Path(sys.argv[1])) as api:
        api.tables.add("once", "w-once")
        with create_session() as session:
            # Otherwise, its pages have a banner: no DAG processor has seen it.
            session.execute(update(DagModel).values(is_stale=False))
        api.show(inventory(time.time()))
        manager = airflow_app.get_auth_manager()
        tokens = {
            name: manager.generate_jwt(SimpleAuthManagerUser(username=name, role=role)) for name, role in USERS.items()
        }
        server = uvicorn.Server(uvicorn.Config(api.app, log_level="warning"))
        threading.Thread(target=_announce, args=(server, tokens, answer), daemon=True).start()
        server.run(sockets=[socket.socket(fileno=int(sys.argv[2]))])


def _announce(server: uvicorn.Server, tokens: dict[str, str], answer: TextIO) -> None:
    while not server.started:
        time.sleep(0.05)
    print(json.dumps(tokens), file=answer, flush=True)
    sys.stdin.read()
    server.should_exit = True


if __name__ == "__main__":
    main()
