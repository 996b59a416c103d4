"""One stack for all of the matrix, and each row of it carried out once for those of its cells that were asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos import doomed
from tests.chaos.matrix import SHORT, Cell
from tests.chaos.row import Row
from tests.chaos.stack import Chaos, chaos_on


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave only the short part, unless CHAOS=all."""
    if os.environ.get("CHAOS") == "all":
        return
    others = [item for item in items if (cell := _cell_of(item)) is not None and cell.name not in SHORT]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="package")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """The stack, broken and mended all the time."""
    folder: Path = tmp_path_factory.mktemp("chaos")
    dooms = folder / "dooms"
    dooms.mkdir()
    env = {
        "AIRFLOW__CORE__EXECUTOR": doomed.CLASS,
        doomed.VARIABLE: str(dooms),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    with chaos_on(folder, env) as running:
        yield running


@pytest.fixture(scope="package")
def rows() -> dict[str, Row]:
    """The rows that were carried out: pytest makes a fixture with a parameter anew for each test."""
    return {}


@pytest.fixture(scope="package")
def row(request: pytest.FixtureRequest, chaos: Chaos, rows: dict[str, Row]) -> Row:
    """The row of the fault that the test names, carried out.

    Of package scope, so that what it starts again in place of what it killed is no test's leak.
    """
    if request.param not in rows:
        cells = [cell for item in request.session.items if (cell := _cell_of(item))]
        moments = [cell.moment for cell in cells if cell.fault == request.param]
        rows[request.param] = made = Row(chaos, request.param, moments)
        made.carry_out()
    assert rows[request.param].is_done, "its row was not carried out: see the row's first cell"
    return rows[request.param]


def _cell_of(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get("cell") if callspec else None
    return cell if isinstance(cell, Cell) else None
