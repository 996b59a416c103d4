"""The overview: executors, profiles, budgets, losses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from modalflow import __version__
from modalflow.budgets.reported import running_of
from modalflow.budgets.spending import Balance, balances
from modalflow.config.budgets import Scope
from modalflow.cost.rates import Rates, UnknownRateError
from modalflow.cost.usage import Record, Reserved
from modalflow.operations.inventory import STATES
from modalflow.operations.profiles.listing import ProfileRow as ListedProfile
from modalflow.protocol.relay_report import RelayReport
from modalflow.protocol.snapshot import SUBMITTED, WAITING, Snapshot
from modalflow.ui.answers.freshness import Freshness
from modalflow.ui.answers.overview import (
    BudgetRow,
    ExecutorRow,
    Overview,
    ProfileRow,
    RelayRow,
    Viewer,
)
from modalflow.ui.sources.airflow_rows import Loss
from modalflow.ui.sources.live_state import LiveState
from modalflow.ui.sources.sources import Spending
from modalflow.ui.views.common import links, shown_user
from modalflow.ui.views.losses import losses_by_cause
from modalflow.ui.views.visible import Visible

_LIMITS = ("min_containers", "max_containers", "buffer_containers", "scaledown_window", "concurrency", "timeout")
_RESOURCES = ("cpu", "memory", "gpu", "region", "cloud", "nonpreemptible")

#: Instead of a text that may name a DAG which the user may not read.
HIDDEN = "An executor logged a problem. Its text can name DAGs that you may not read."


@dataclass(frozen=True)
class Facts:
    """All that the overview is made of."""

    live: LiveState | None
    spending: Spending | None
    losses: Sequence[Loss]


def overview(facts: Facts, visible: Visible, *, manage: bool, freshness: Freshness, now: float) -> Overview:
    """Return the overview for a user; ``manage`` is whether the user may act on profiles."""
    live = facts.live
    answer = Overview(
        freshness=freshness,
        links=links(live),
        viewer=Viewer(manage=manage, executors=visible.cluster),
        version=__version__,
        losses=losses_by_cause(facts.losses, visible),
    )
    if live is None:
        return answer
    inventory = live.inventory
    answer.app, answer.environment = live.app, live.environment
    answer.worker_version = inventory.deployment.version if inventory.deployment is not None else ""
    counts = _counts(live, visible)
    answer.totals = {state: sum(of_profile[state] for of_profile in counts.values()) for state in STATES}
    rates = facts.spending.sums.rates if facts.spending is not None else None
    granted = inventory.deployment.granted if inventory.deployment is not None else {}
    defined = inventory.deployment.facts if inventory.deployment is not None else {}
    answer.profiles = [
        _profile(
            row,
            counts.get(row.profile, Counter()),
            defined.get(row.profile, {}),
            granted.get(row.profile),
            rates,
            visible,
        )
        for row in _profiles(live, facts.spending, visible)
    ]
    if not visible.sees_all_teams:
        for profile in answer.profiles:
            profile.containers = profile.backlog = None
    if visible.cluster:
        # An executor with the newest report first, and those that are gone at the end.
        newest = sorted(inventory.executors, key=lambda each: -each.published_at)
        answer.executors = [
            _executor(snapshot, visible, now) for snapshot in newest if visible.sees_team(snapshot.team)
        ]
        answer.relays = [_relay(report, now) for report in inventory.relays if visible.sees_all_teams]
    if facts.spending is not None:
        answer.budgets = list(_budgets(facts.spending, live, visible, now))
    return answer


def _counts(live: LiveState, visible: Visible) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for row in live.rows:
        if visible.sees(row.dag_id):
            counts.setdefault(row.work.profile, Counter())[row.work.state] += 1
    return counts


def _profiles(live: LiveState, spending: Spending | None, visible: Visible) -> list[ListedProfile]:
    """Return the profiles; with teams those that work of the user's DAGs uses, or has used in the last days."""
    if visible.sees_all_teams:
        return list(live.profiles)
    used = {row.work.profile for row in live.rows if visible.sees(row.dag_id)}
    if spending is not None:
        used |= {spender.profile for spender in spending.sums.spenders() if visible.sees(spender.dag)}
    return [row for row in live.profiles if row.profile in used]


def _of_teams(snapshot: Snapshot, visible: Visible) -> Snapshot:
    """Return a report whose figures are those of the work that a user of some teams may see."""
    # A team's DAG can name an executor of no team.
    calls = [call for call in snapshot.calls if visible.sees(call.task.dag_id if call.task is not None else "")]
    return replace(snapshot, calls=calls, more=0, states={}, held=0)


def _executor(snapshot: Snapshot, visible: Visible, now: float) -> ExecutorRow:
    if not visible.sees_all_teams:
        snapshot = _of_teams(snapshot, visible)
    states = Counter(call.state for call in snapshot.calls) | Counter(snapshot.states)
    trouble, obstacle = (text if visible.everything or not text else HIDDEN for text in _texts(snapshot))
    return ExecutorRow(
        id=snapshot.partition,
        place=f"{snapshot.host}/{snapshot.pid}",
        team=snapshot.team,
        version=snapshot.version,
        alive_since=snapshot.started_at,
        reported_at=snapshot.published_at,
        silent=snapshot.is_silent(now),
        in_flight=snapshot.in_flight,
        waiting=states[WAITING],
        submitted=states[SUBMITTED],
        held=snapshot.held,
        obstacle=obstacle,
        trouble=trouble,
        trouble_at=snapshot.trouble_at,
    )


def _texts(snapshot: Snapshot) -> tuple[str, str]:
    return snapshot.trouble or snapshot.installation, snapshot.obstacle


def _relay(report: RelayReport, now: float) -> RelayRow:
    return RelayRow(name=report.name, reported_at=report.published_at, silent=report.is_silent(now))


def _profile(
    row: ListedProfile,
    counts: Mapping[str, int],
    facts: Mapping[str, Any],
    granted: Mapping[str, Any] | None,
    rates: Rates | None,
    visible: Visible,
) -> ProfileRow:
    running, submitted, waiting = (counts.get(name, 0) for name in STATES)
    return ProfileRow(
        name=row.profile,
        containers=row.containers,
        backlog=row.backlog,
        running=running,
        submitted=submitted,
        waiting=waiting,
        state=row.state,
        state_by=shown_user(row.hold.by, cluster=visible.cluster) if row.hold is not None else "",
        state_since=row.hold.since if row.hold is not None else 0.0,
        state_reason=row.hold.reason if row.hold is not None else "",
        limits=_described(facts, _LIMITS),
        resources=_described({**facts, **(granted or {})}, _RESOURCES),
        dollars_per_hour=None if granted is None or rates is None else _per_hour(granted, rates),
        problem=row.problem,
    )


def _described(facts: Mapping[str, Any], names: Iterable[str]) -> dict[str, str]:
    return {name: _text(name, facts[name]) for name in names if facts.get(name) not in (None, "", [], False)}


def _text(name: str, value: Any) -> str:
    text = " to ".join(map(str, value)) if name in ("cpu", "memory") and isinstance(value, list) else _listed(value)
    unit = {"memory": " MiB", "timeout": " s", "scaledown_window": " s"}.get(name, "")
    return text if text == "auto" else f"{text}{unit}"


def _listed(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _per_hour(granted: Mapping[str, Any], rates: Rates) -> float | None:
    record = Record("", "", 0.0, reserved=Reserved.read(granted), occupied=3600.0)
    try:
        return float(rates.dollars(record))
    except UnknownRateError:
        return None


def _budgets(spending: Spending, live: LiveState, visible: Visible, now: float) -> Iterable[BudgetRow]:
    running = running_of(live.reports, spending.sums.zone, now)
    for balance in balances(spending.settings.budgets, spending.sums.by_period(now), running):
        if _may_see(balance, visible):
            yield BudgetRow(
                scope=balance.budget.scope.value,
                subject=balance.subject,
                per=balance.budget.per.value,
                dollars=float(balance.budget.dollars),
                spent=float(balance.spent),
                running=float(balance.running),
                left=float(balance.left),
                action=balance.budget.action.value,
                used_up=balance.is_used_up,
            )


def _may_see(balance: Balance, visible: Visible) -> bool:
    match balance.budget.scope:
        case Scope.DAG:
            return visible.sees(balance.subject)
        case Scope.TEAM:
            return visible.cluster and visible.sees_team(balance.subject)
        case _:
            return visible.cluster and visible.sees_all_teams
