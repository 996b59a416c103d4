"""The page of `modalflow status`: made of what executors and containers report, whatever that is."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from modalflow.cli.status import _page, _wire
from modalflow.errors import MalformedMessageError
from modalflow.operations.inventory import Inventory, ProfileState
from modalflow.protocol.messages import Deployment, Entry, State
from modalflow.protocol.snapshot import InFlight, Snapshot
from tests.strange import JSON_VALUES, TEXTS

SITE: Any = SimpleNamespace(
    names=SimpleNamespace(app="modalflow"), control_plane=SimpleNamespace(environment="main"), deploy_command="…"
)
NOW = 1_800_000_000.0
ENTRY = json.loads(Entry("w", State.RUNNING, "fc-1", "ta-1", "o", started_at=NOW).to_json())
SNAPSHOT = json.loads(Snapshot("p", published_at=NOW, calls=[InFlight("w", "label", "waiting", NOW)]).to_json())
DEPLOYMENT = json.loads(Deployment("0.4.0", 1, "3.3.2", "3.11.7", ("default",), {}, 1.0).to_json())


def changed(base: dict[str, Any]) -> st.SearchStrategy[str]:
    """The base with any of its fields replaced by anything."""
    values = JSON_VALUES | TEXTS | st.just({"a": 1}) | st.lists(st.lists(JSON_VALUES | TEXTS))
    return st.dictionaries(st.sampled_from(list(base)), values, max_size=3).map(lambda new: json.dumps(base | new))


@settings(deadline=None, max_examples=15)
@given(st.lists(changed(ENTRY), max_size=2), st.lists(changed(SNAPSHOT), max_size=2), changed(DEPLOYMENT), TEXTS)
def test_any_report_can_be_shown(entries: list[str], snapshots: list[str], deployment: str, problem: str) -> None:
    """A line of it cannot end a row or steer the terminal, and `--json` is JSON."""
    inventory = Inventory(
        NOW,
        [found for text in snapshots for found in read(Snapshot, text)],
        [found for text in entries for found in read(Entry, text)],
        [ProfileState("default", 1, 2), ProfileState("gpu", problem=problem)],
        next(iter(read(Deployment, deployment)), None),
    )
    for line in _page(inventory, SITE, 40):
        line.encode()
        assert not set(re.sub(r"\x1b\[[0-9;]*m", "", line)) & set("\n\r\x00\x1b\x07\x9b\u2028")
    json.loads(json.dumps(_wire(inventory, SITE), allow_nan=False))


def test_an_end_is_not_called_a_success() -> None:
    """A task that failed in Airflow has ended normally for its executor."""
    snapshot = Snapshot("p", published_at=NOW, counts={"started": 2, "taken": 2, "success": 1, "failed": 1})
    page = "\n".join(_page(Inventory(NOW, [snapshot], [], [], None), SITE, 40))
    assert "so far 2 taken, 1 ended normally, 1 failed" in page


def test_tasks_that_run_again_are_counted() -> None:
    """With the cause of their loss."""
    snapshot = Snapshot("p", published_at=NOW, counts={"taken": 2, "run_again.container-lost": 2})
    page = "\n".join(_page(Inventory(NOW, [snapshot], [], [], None), SITE, 40))
    assert "so far 2 taken, 2 run again (container-lost)" in page


def read(kind: Any, text: str) -> list[Any]:
    """What a text holds; nothing if it is malformed, which is the only way in which reading it may fail."""
    with contextlib.suppress(MalformedMessageError):
        return [kind.from_json(text)]
    return []


def test_what_is_well_formed_is_shown() -> None:
    """The inputs of the test above are read unless they were changed for the worse."""
    texts = (json.dumps(ENTRY), json.dumps(SNAPSHOT), json.dumps(DEPLOYMENT))
    entry, snapshot, deployment = (
        read(kind, text)[0] for kind, text in zip((Entry, Snapshot, Deployment), texts, strict=True)
    )
    page = "\n".join(_page(Inventory(NOW, [snapshot], [entry], [], deployment), SITE, 40))
    assert "ta-1 fc-1" in page
    assert dataclasses.asdict(entry)["container_id"] == "ta-1"
