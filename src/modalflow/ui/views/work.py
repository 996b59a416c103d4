"""The table of work: filtered, sorted, and joined from the texts of its rows."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field

from modalflow.operations.inventory import STATES
from modalflow.ui.answers.freshness import Freshness, Links
from modalflow.ui.answers.work import COLUMNS, MOST_ROWS, WorkTable
from modalflow.ui.sources.live_state import LiveState, Row
from modalflow.ui.views.visible import Visible


@dataclass(frozen=True)
class Filters:
    """A user's selection. An empty set, or an empty text, selects everything."""

    states: Set[str] = field(default_factory=frozenset)
    profiles: Set[str] = field(default_factory=frozenset)
    dags: Set[str] = field(default_factory=frozenset)
    text: str = ""
    sort: str = ""
    """A column; with a minus in front, downwards."""
    offset: int = 0
    limit: int = MOST_ROWS


def work_table(
    live: LiveState | None,
    visible: Visible,
    editable: Set[str],
    filters: Filters,
    freshness: Freshness,
    links: Links,
) -> bytes:
    """Return the JSON of a ``WorkTable``. ``editable`` are the DAGs whose work the user may cancel."""
    shown = [row for row in live.rows if visible.sees(row.dag_id)] if live is not None else []
    found = _without_states(shown, filters, places=visible.cluster)
    states = Counter(row.work.state for row in found)
    if filters.states:
        found = [row for row in found if row.work.state in filters.states]
    page = _sorted(found, filters.sort, places=visible.cluster)[
        filters.offset : filters.offset + min(filters.limit, MOST_ROWS)
    ]
    dags = {row.dag_id for row in shown if row.dag_id}
    head = WorkTable(
        freshness=freshness,
        links=links,
        offset=filters.offset,
        matched=len(found),
        total=len(shown),
        unlisted=live.inventory.unlisted if live is not None and visible.everything else 0,
        states={state: states[state] for state in STATES},
        profiles=sorted({row.work.profile for row in shown if row.work.profile}),
        dags=sorted(dags),
        cancellable=sorted(dags & editable),
    ).model_dump(mode="json", exclude={"rows"})
    # The rows are JSON already: to encode 10,000 of them again would take most of the time for the answer.
    text = json.dumps(head, separators=(",", ":"))
    texts = [row.text if visible.cluster else row.text_without_place for row in page]
    return f'{text[:-1]},"rows":[{",".join(texts)}]}}'.encode()


def _without_states(rows: Sequence[Row], filters: Filters, *, places: bool) -> list[Row]:
    text = filters.text.casefold()
    return [
        row
        for row in rows
        if (not filters.profiles or row.work.profile in filters.profiles)
        and (not filters.dags or row.dag_id in filters.dags)
        and (not text or text in row.folded or (places and text in row.work.executor.casefold()))
    ]


def _sorted(rows: list[Row], sort: str, *, places: bool) -> list[Row]:
    column = sort.removeprefix("-")
    if column not in COLUMNS or (column == "executor" and not places):
        return rows
    number = COLUMNS.index(column)
    return sorted(rows, key=lambda row: row.cells[number], reverse=sort.startswith("-"))
