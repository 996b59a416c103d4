"""One stack for all of the matrix, and each row of it carried out once for those of its cells that were asked for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.matrix import SHORT, Cell
from tests.chaos.row import Row
from tests.chaos.stack import Chaos, chaos_on


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without CHAOS=all only the short part runs."""
    if os.environ.get("CHAOS") == "all":
        return
    for item in items:
        cell = _cell_of(item)
        if cell is not None and cell.name not in SHORT:
            item.add_marker(pytest.mark.skip(reason="make chaos runs it (CHAOS=all)"))


@pytest.fixture(scope="session")
def chaos(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chaos]:
    """The stack, broken and mended all the time."""
    folder: Path = tmp_path_factory.mktemp("chaos")
    with chaos_on(folder) as running:
        yield running


@pytest.fixture(scope="session")
def rows() -> dict[str, Row]:
    """The rows that were carried out: pytest makes a fixture with a parameter anew for each test."""
    return {}


@pytest.fixture(scope="session")
def row(request: pytest.FixtureRequest, chaos: Chaos, rows: dict[str, Row]) -> Row:
    """The row of the fault that the test names, carried out.

    Of session scope, so that what it starts again in place of what it killed is no test's leak.
    """
    if request.param not in rows:
        cells = [cell for item in request.session.items if (cell := _cell_of(item)) and not _is_skipped(item)]
        moments = [cell.moment for cell in cells if cell.fault == request.param]
        rows[request.param] = made = Row(chaos, request.param, moments)
        made.carry_out()
    return rows[request.param]


def _cell_of(item: pytest.Item) -> Cell | None:
    callspec = getattr(item, "callspec", None)
    cell = callspec.params.get("cell") if callspec else None
    return cell if isinstance(cell, Cell) else None


def _is_skipped(item: pytest.Item) -> bool:
    return item.get_closest_marker("skip") is not None
