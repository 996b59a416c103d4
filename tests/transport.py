"""The transport of the stacks' relays: Modal Queues, or with RELAY_TRANSPORT=tunnel tunnels; and a check of its use."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any, Final

import modal

from modalflow.demo.modal_stack import ModalStack
from modalflow.names import Names
from modalflow.protocol.relay_report import RELAY, RelayReport
from tests.sdk import client_of
from tests.support import wait_until

TRANSPORT: Final = os.environ.get("RELAY_TRANSPORT") or "queues"
#: What it is for the executor, and for its relays.
SETTINGS: Final = {"AIRFLOW__MODAL_EXECUTOR__RELAY_TRANSPORT": TRANSPORT}


#: Seconds for a relay's next report.
PATIENCE: Final = 30.0


def check_transport(stack: ModalStack) -> None:
    """AssertionError if a stack's requests travelled otherwise: without a tunnel, all would pass over Modal Queues."""
    with client_of(stack.local.url, stack.local.env) as client:
        reports: Any = modal.Dict.from_name(Names().relays, create_if_missing=True, client=client)
        counts = wait_until(lambda: _counts(reports), PATIENCE, "a relay's report of requests", interval=0.5)
    print(f"requests over relays, transport {TRANSPORT}: {dict(counts or {})}")
    assert counts is not None and bool(counts["tunnels"]) == (TRANSPORT == "tunnel"), counts


def _counts(reports: Any) -> Counter[str] | None:
    counts = Counter[str]()
    for key, value in reports.items():
        if str(key).startswith(RELAY):
            counts.update(RelayReport.from_json(value).counts)
    return counts if counts["requests"] else None
