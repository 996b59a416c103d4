"""A call's life: what the table of transitions permits, and that every change of a call goes through it."""

from __future__ import annotations

import ast
import dataclasses
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from modalflow.executor.lifecycle.call import TRANSITIONS, Call, Phase, TransitionError
from modalflow.executor.mailbox import Adoption, SubmitRequest
from modalflow.executor.reporting import call_diagram
from modalflow.executor.submission.resources import Resources
from modalflow.protocol.messages import Entry, Kind, State, Submission

CHECKOUT = Path(__file__).parents[3]
EXECUTOR = CHECKOUT / "src" / "modalflow" / "executor"

SUBMISSION = Submission("work", Kind.WORKLOAD, "log", "here", "the task")
REQUEST = SubmitRequest("key", SUBMISSION, Resources(), None, None)
ENTRY = Entry("work", State.RUNNING, "fc-claim", "ta-1", "owner")

#: Event → how it happens to a call.
EVENTS: dict[str, Callable[[Call], None]] = {
    "requested": lambda call: call.requested(REQUEST, 1.0),
    "placed": lambda call: call.placed(SUBMISSION, Resources()),
    "spawning": lambda call: call.spawning(),
    "submitted": lambda call: call.submitted("fc-spawn", 1.0),
    "postponed": lambda call: call.postponed(),
    "claimed": lambda call: call.claimed(ENTRY, 1.0, 2.0, ""),
    "lost": lambda call: call.lost(1.0),
    "checking": lambda call: call.checking(),
    "still_adopted": lambda call: call.still_adopted(),
    "still_submitted": lambda call: call.still_submitted(),
    "start_again": lambda call: call.start_again(ENTRY, 1.0),
    "recalled": lambda call: call.recalled(1.0),
    "claim_removed": lambda call: call.claim_removed(),
    "claimed_elsewhere": lambda call: call.claimed_elsewhere(ENTRY, 1.0),
    "explaining": lambda call: call.explaining(ENTRY),
    "interrupted": lambda call: call.interrupted(),
    "settle": lambda call: call.settle(),
}

#: What a call is made of → how it begins its life.
BEGINNINGS: dict[str, Callable[[], Call]] = {
    "accepted": lambda: Call.accepted(REQUEST, 0.0),
    "adopted": lambda: Call.adopted(Adoption("key", "work", None, "log", "the task"), 0.0),
    "adopted with a call": lambda: Call.adopted(Adoption("key", "work", "fc-1", "log", "the task"), 0.0),
}


class Life(RuleBasedStateMachine):
    """Any events in any order, beside a model that knows the table alone."""

    @initialize(beginning=st.sampled_from(sorted(BEGINNINGS)))
    def begins(self, beginning: str) -> None:
        self.call = BEGINNINGS[beginning]()
        self.phase = self.call.phase

    @rule(event=st.sampled_from(sorted(TRANSITIONS)))
    def happens(self, event: str) -> None:
        permitted = TRANSITIONS[event].get(self.phase)
        # A call that another scheduler submitted cannot be submitted here before Airflow's database gives its request.
        if event in ("lost", "claim_removed") and self.call.submission is None:
            return
        if event == "still_adopted" and self.call.function_call_id:
            return
        before = dataclasses.replace(self.call)
        if permitted is None:
            with pytest.raises(TransitionError, match=self.phase.name):
                EVENTS[event](self.call)
            assert self.call == before
            return
        EVENTS[event](self.call)
        self.phase = permitted
        assert self.call.phase is permitted

    @invariant()
    def holds_together(self) -> None:
        call = getattr(self, "call", None)
        if call is None:
            return
        if call.phase in (Phase.QUEUED, Phase.SPAWNING):
            assert call.submission is not None and call.function_call_id is None and not call.container_id
        assert (call.request is not None) == (call.phase is Phase.UNPLACED)
        if call.phase in (Phase.RUNNING, Phase.EXPLAINING):
            assert call.function_call_id is not None
        if call.phase is Phase.ADOPTED:
            assert call.function_call_id is None


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_every_event_is_a_transition_of_a_call() -> None:
    """The table names methods of the class, and each phase can be reached, left and ended."""
    assert set(EVENTS) == set(TRANSITIONS)
    assert all(callable(getattr(Call, event)) for event in TRANSITIONS)
    reached = {after for moves in TRANSITIONS.values() for before, after in moves.items() if before is not after}
    assert reached | {Phase.UNPLACED, Phase.ADOPTED, Phase.WAITING} == set(Phase)
    assert set(TRANSITIONS["settle"]) == set(Phase) - {Phase.SETTLED}
    assert not any(moves.get(Phase.SETTLED, Phase.SETTLED) is not Phase.SETTLED for moves in TRANSITIONS.values())


def test_the_diagram_is_up_to_date() -> None:
    """ARCHITECTURE.md shows the table as the code has it, and the usual moves are in the table."""
    assert call_diagram.section() in (CHECKOUT / "ARCHITECTURE.md").read_text(), "run `make docs`"
    assert set(call_diagram.meanings()) == {phase.name for phase in Phase}
    assert all(TRANSITIONS[event][phase] for event, phases in call_diagram._USUAL.items() for phase in phases)


FIELDS = {field.name for field in dataclasses.fields(Call)}


def assignments(tree: Path) -> Iterator[str]:
    """Yield each place outside of the call's own module that assigns a field of a call, or makes one."""
    for path in sorted(tree.rglob("*.py")):
        if path.match("lifecycle/call.py"):
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if _writes_a_field(node) or _makes_a_call(node):
                yield f"{path.relative_to(tree)}:{node.lineno}"  # type: ignore[attr-defined]


def _writes_a_field(node: ast.AST) -> bool:
    """Return whether this assigns or deletes a call's field, on anything but the object whose method does so."""
    if not isinstance(node, ast.Attribute) or isinstance(node.ctx, ast.Load):
        return False
    return node.attr in FIELDS and not (isinstance(node.value, ast.Name) and node.value.id == "self")


def _makes_a_call(node: ast.AST) -> bool:
    """Return whether this makes a call by its fields, or assigns an attribute by its name."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("Call", "setattr")


def test_no_other_module_assigns_a_field_of_a_call() -> None:
    """Whoever wants to know how a call changes reads one module."""
    assert list(assignments(EXECUTOR)) == []


@pytest.mark.parametrize(
    "line",
    [
        "call.function_call_id = None",
        "call.attempts += 1",
        "call.phase: object = None",
        "first.call.checks, other = 1, 2",
        "del call.request",
        "setattr(call, name, 1)",
        "Call('key', 'work')",
    ],
)
def test_an_assignment_elsewhere_is_found(tmp_path: Path, line: str) -> None:
    """The check is alive: a violation that is planted in any module is named with its line."""
    copy = tmp_path / "executor"
    shutil.copytree(EXECUTOR, copy, ignore=shutil.ignore_patterns("__pycache__"))
    module = copy / "submission" / "submitter.py"
    module.write_text(f"{module.read_text()}\n\ndef planted(call, first, name):\n    {line}\n")
    [found] = assignments(copy)
    assert found.startswith("submission/submitter.py:")
