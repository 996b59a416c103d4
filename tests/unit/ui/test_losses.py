"""Losses by cause, found again in the sentences of Airflow's audit log."""

from __future__ import annotations

import pytest

from modalflow.reasons import EXPLANATIONS, Cause, explain
from modalflow.ui.sources.airflow_rows import Loss
from modalflow.ui.views.losses import advice_for, cause_of, losses_by_cause
from modalflow.ui.views.visible import Visible


@pytest.mark.parametrize("cause", [cause for cause in Cause if cause is not Cause.OTHER])
def test_every_cause_is_found_in_its_reason(cause: Cause) -> None:
    """With ids and without, with a report of Modal, and with a beginning of the executor's."""
    for ids in ({}, {"container": "ta-1", "call": "fc-1"}):
        assert cause_of(explain(cause, **ids)) is cause
        assert cause_of(explain(cause, detail="Modal said: 7", before="Not started", **ids)) is cause


def test_a_lost_task_that_runs_again_has_its_cause() -> None:
    """Its entry names what took it."""
    for cause, known in EXPLANATIONS.items():
        if known.lost_to:
            assert cause_of(f"Lost to {known.lost_to} after 3 s (function call fc-1): run again (1 of 3)") is cause
    assert cause_of("Something new of a later version") is Cause.OTHER


def loss(at: float, text: str, dag_id: str = "etl") -> Loss:
    return Loss(at, text, False, dag_id, "t", "r", -1, 1)


def test_losses_are_grouped_and_limited() -> None:
    """The newest first, ten of each cause, and only of DAGs that the user may read."""
    oom = str(explain(Cause.OUT_OF_MEMORY, call="fc-1"))
    found = [loss(100.0 - number, oom) for number in range(30)]
    found += [loss(50.0, "Lost to preemption after 3 s"), loss(10.0, oom, "secret")]
    groups = losses_by_cause(found, Visible(frozenset({"etl"})))
    assert [(group.cause, group.number, len(group.losses)) for group in groups] == [
        ("out-of-memory", 30, 10),
        ("container-stopped", 1, 1),
    ]
    assert groups[0].losses[0].at == 100.0
    assert groups[0].what == "Its container ran out of memory while this ran as its function call"


def test_advice_is_not_repeated() -> None:
    """A reason mostly ends with it."""
    reason = explain(Cause.OUT_OF_MEMORY)
    assert advice_for(Cause.OUT_OF_MEMORY, reason) == ""
    assert advice_for(Cause.OUT_OF_MEMORY, "It ran out of memory").startswith("Ask for more")
