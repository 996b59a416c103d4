"""The matrix of fault and moment: whatever goes wrong whenever, nothing is lost or runs twice, and somebody says why.

``make chaos`` runs all of it; ``CHAOS=all pytest tests/chaos -k scheduler_killed-running`` one cell.
"""

from __future__ import annotations

import pytest

from tests.chaos.invariants import problems_of_run, retries_used, story
from tests.chaos.matrix import CELLS, Cell
from tests.chaos.row import Row
from tests.chaos.stack import Chaos

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize(("row", "cell"), [pytest.param(c.fault, c, id=c.name) for c in CELLS], indirect=["row"])
def test_cell(chaos: Chaos, row: Row, cell: Cell) -> None:
    """Every task ends as it would have, or where a try may be lost with a reason; no phase of a try runs twice."""
    run = row.runs[cell.moment]
    visits = chaos.tally.visits(run.cell)
    problems = problems_of_run(chaos, run.dag_id, run.run_id, visits, may_lose=cell.may_lose, often=cell.often)
    if cell.costs_nothing:
        problems += retries_used(chaos, run.dag_id, run.run_id)
    problems += row.left
    told = [*row.steps, story(chaos, run.dag_id, run.run_id, visits)]
    assert not problems, "\n".join([*problems, *told])
