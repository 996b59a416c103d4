"""Losses by cause: entries of Airflow's audit log, compared with the table of reasons."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache

from modalflow.reasons import EXPLANATIONS, Cause
from modalflow.ui.answers.overview import LossGroup, LossRow
from modalflow.ui.sources.airflow_rows import Loss
from modalflow.ui.views.visible import Visible

#: Losses of one cause in an answer.
_MOST = 10


def losses_by_cause(losses: Iterable[Loss], visible: Visible) -> list[LossGroup]:
    """Return the losses that a user may see; the newest first, groups and losses."""
    groups: dict[Cause, LossGroup] = {}
    for loss in losses:
        if not visible.sees(loss.dag_id):
            continue
        cause = cause_of(loss.text)
        group = groups.get(cause)
        if group is None:
            group = groups[cause] = LossGroup(cause=cause.value, what=what(cause), advice=EXPLANATIONS[cause].do)
        group.number += 1
        if len(group.losses) < _MOST:
            group.losses.append(_row(loss, cause))
    return list(groups.values())


def what(cause: Cause) -> str:
    """Return the sentence of a cause, without a container and a call."""
    text = EXPLANATIONS[cause].what.format(container="its container", call="its function call")
    return text[:1].upper() + text[1:]


def advice_for(cause: Cause, reason: str) -> str:
    """Return the advice of the table, unless the reason already has it."""
    advice = EXPLANATIONS[cause].do
    return "" if advice and advice in reason else advice


def cause_of(text: str) -> Cause:
    """Return the cause of a reason's text; OTHER if the table does not have its sentence."""
    for cause, pattern in _patterns():
        if pattern.search(text):
            return cause
    return Cause.OTHER


def _row(loss: Loss, cause: Cause) -> LossRow:
    return LossRow(
        at=loss.at,
        cause=cause.value,
        reason=loss.text,
        dag_id=loss.dag_id,
        task_id=loss.task_id,
        run_id=loss.run_id,
        map_index=loss.map_index,
        try_number=loss.try_number,
    )


@cache
def _patterns() -> list[tuple[Cause, re.Pattern[str]]]:
    """Return a pattern for each cause: a prefix like "Not started" can come before the sentence, in lower case."""
    found = []
    for cause, known in EXPLANATIONS.items():
        if cause is Cause.OTHER:
            continue
        parts = re.split(r"\{container\}|\{call\}", known.what)
        sentence = r"(?:container \S+|its container|function call \S+|its function call)".join(map(re.escape, parts))
        patterns = [rf"(?:^|: ){sentence}"]
        if known.lost_to:
            patterns.append(f"^Lost to {re.escape(known.lost_to)} ")
        found.append((cause, re.compile("|".join(patterns), re.IGNORECASE)))
    # The longest first: "Modal does not know …" before a sentence that another one contains.
    return sorted(found, key=lambda each: -len(each[1].pattern))
