"""The size of a task's try: from its profile, its executor_config, its last runs, and what earlier tries ran out of.

Pure: no I/O and no clock. A task without growth and without "auto" has no terms, and costs nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modalflow.config.values import AUTO, LONGEST_TIMEOUT, MOST_MEMORY, check_limits
from modalflow.cost.figures import memory as shown_memory
from modalflow.cost.history import MEMORY_SIZES, NEEDS_AFTER_OOM, Need, Run, cpu_need, memory_need, size_for
from modalflow.cost.usage import DEFAULT_MEMORY_MIB
from modalflow.errors import ConfigError, WorkloadRejectedError
from modalflow.executor.submission.resources import TERMS, Resources
from modalflow.protocol.shortage import NO_SHORTAGE, Shortage

_SIZES = ("cpu", "memory", "timeout")


@dataclass(frozen=True)
class Terms:
    """How the size of a task is decided: its profile's terms, overridden by its own."""

    cpu: Any = None
    memory: Any = None
    timeout: Any = None
    profile_cpu: Any = None
    """What the profile has; None if it has "auto" as well."""
    profile_memory: Any = None
    memory_growth: float | None = None
    memory_limit: float = MOST_MEMORY
    timeout_growth: float | None = None
    timeout_limit: float = LONGEST_TIMEOUT

    @property
    def needs_history(self) -> bool:
        """Whether the last runs count."""
        return AUTO in (self.cpu, self.memory)

    @property
    def grows(self) -> bool:
        """Whether the shortages of earlier tries of the same task instance count."""
        return bool(self.timeout_growth or self.growth_of_memory)

    @property
    def growth_of_memory(self) -> float | None:
        return self.memory_growth or (NEEDS_AFTER_OOM if self.memory == AUTO else None)


@dataclass(frozen=True)
class Sized:
    """The options of a try."""

    resources: Resources
    note: str = ""
    """Growth, for the task's log."""
    runs: Mapping[str, int] = field(default_factory=dict)
    """Sizes from the last runs, cpu or memory → the number of runs."""


@dataclass(frozen=True)
class Known:
    """What is known of a task when its try is sized."""

    runs: Sequence[Run] = ()
    """The last runs of the task and its mapped siblings, oldest first."""
    shortage: Shortage = NO_SHORTAGE
    """What earlier tries of the task instance ran out of."""


NOTHING_KNOWN = Known()


def has_terms(options: Mapping[str, Any]) -> bool:
    """Return whether options of a profile say how sizes are decided."""
    return any(name in options for name in TERMS) or AUTO in (options.get("cpu"), options.get("memory"))


def without_terms(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a profile without those that only say how sizes are decided."""
    return {name: value for name, value in options.items() if name not in TERMS and value != AUTO}


def terms_of(of_profile: Mapping[str, Any], wanted: Resources, own: Resources, task_timeout: float) -> Terms:
    """Return the terms of a task: ``wanted`` are its options, ``own`` its growth and limits.

    ``task_timeout`` is that of the executor: no try may take longer. Raises WorkloadRejectedError if a limit
    contradicts an amount of the profile, or the other way round.
    """
    asked = {**of_profile, **wanted.plain(), **own.plain()}
    try:
        check_limits(lambda name: f"{name} of the task and its profile", asked)
    except ConfigError as error:
        raise WorkloadRejectedError(str(error)) from error
    known = without_terms(of_profile)
    values = {name: value for name in (*_SIZES, *TERMS) if (value := asked.get(name)) is not None}
    values["timeout_limit"] = min(values.get("timeout_limit", LONGEST_TIMEOUT), task_timeout)
    return Terms(**values, profile_cpu=known.get("cpu"), profile_memory=known.get("memory"))


def sized(terms: Terms, wanted: Resources, known: Known) -> Sized:
    """Return the options of a try."""
    options, counts = dict(wanted.plain()), {}
    if terms.memory == AUTO:
        need = memory_need(known.runs, terms.growth_of_memory or NEEDS_AFTER_OOM)
        options["memory"] = _automatic(need, terms.profile_memory, terms.memory_limit, whole=True)
        counts["memory"] = need.runs if need is not None else 0
    if terms.cpu == AUTO:
        need = cpu_need(known.runs)
        options["cpu"] = _automatic(need, terms.profile_cpu, math.inf)
        counts["cpu"] = need.runs if need is not None else 0
    shortage = known.shortage
    notes = [_grow_memory(terms, options, shortage.memory_mib), _grow_timeout(terms, options, shortage.timeout)]
    kept = {name: value for name, value in options.items() if value is not None}
    return Sized(Resources.of(kept), " ".join(filter(None, notes)), counts)


def fallback(terms: Terms, wanted: Resources) -> Resources:
    """Return what a task asks for if it cannot be sized: its profile's in place of "auto"."""
    left = {name: value for name, value in wanted.plain().items() if value != AUTO}
    return Resources.of(left)


def _automatic(need: Need | None, of_profile: Any, most: float, *, whole: bool = False) -> Any:
    """Return the amount that follows from runs, with the limit of the profile if it has one; None for the profile's."""
    if need is None:
        return of_profile
    amount = min(need.size, most)
    amount = int(amount) if whole else amount
    if isinstance(of_profile, list | tuple):
        return [amount, max(amount, of_profile[1])]
    return amount


def _grow_memory(terms: Terms, options: dict[str, Any], had: float) -> str:
    growth = terms.growth_of_memory
    if had <= 0 or growth is None:
        return ""
    now = options.get("memory") or terms.profile_memory or DEFAULT_MEMORY_MIB
    most = now[1] if isinstance(now, list | tuple) else now
    wanted = size_for(had * growth, MEMORY_SIZES) if terms.memory == AUTO else had * growth
    grown = max(most, min(math.ceil(wanted), int(terms.memory_limit)))
    if isinstance(now, list | tuple):
        options["memory"] = [min(math.ceil(now[0] * grown / most), grown), grown]
    else:
        options["memory"] = grown
    if grown <= had:
        return f"An earlier try ran out of memory with {shown_memory(had)}, and its memory_limit allows no more."
    why = f"memory_growth = {growth:g}" if terms.memory_growth else "memory = 'auto'"
    return (
        f"This try may use {shown_memory(grown)} of memory instead of {shown_memory(had)}, with which an earlier try "
        f"ran out of memory ({why})."
    )


def _grow_timeout(terms: Terms, options: dict[str, Any], had: float) -> str:
    if had <= 0 or terms.timeout_growth is None:
        return ""
    now = options.get("timeout") or terms.timeout or LONGEST_TIMEOUT
    grown = max(now, min(math.ceil(had * terms.timeout_growth), int(terms.timeout_limit)))
    options["timeout"] = grown
    if grown <= had:
        return f"Modal ended an earlier try at its timeout of {had:,.0f} s, and its limit allows no more."
    return (
        f"This try may take {grown:,.0f} s instead of {had:,.0f} s, at which Modal ended an earlier try "
        f"(timeout_growth = {terms.timeout_growth:g})."
    )
