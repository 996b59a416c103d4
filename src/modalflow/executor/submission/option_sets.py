"""A bound on how many container pools the tasks of a profile spread over. Pure.

Each distinct set of options is a pool of its own on Modal, which starts cold and is paid for while it idles. Options
that are computed (memory by the size of a file, say) make one of every task, which nobody means to.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from modalflow.errors import WorkloadRejectedError
from modalflow.executor.submission.resources import Resources

#: Seconds for which a set counts after it was last asked for: by then its containers are gone.
COUNTS_FOR = 3600.0

#: How many sets the reason names.
_NAMED = 3


@dataclass
class _Use:
    times: int
    last_at: float


class OptionSets:
    """The option sets of the last hour, by profile. ``most`` 0 is any number."""

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._uses: defaultdict[str, dict[Resources, _Use]] = defaultdict(dict)

    def admit(self, profile: str, options: Resources) -> None:
        """Count a task with these options; WorkloadRejectedError where that would be one set too many."""
        if not options.options or not self._most:
            return
        uses, now = self._uses[profile], self._clock()
        known = uses.get(options)
        if known is not None:
            known.times += 1
            known.last_at = now
            return
        if len(uses) >= self._most:
            for old in [each for each, use in uses.items() if now - use.last_at > COUNTS_FOR]:
                del uses[old]
        if len(uses) >= self._most:
            raise WorkloadRejectedError(self._reason(profile, options, uses))
        uses[options] = _Use(1, now)

    def _reason(self, profile: str, options: Resources, uses: dict[Resources, _Use]) -> str:
        often = sorted(uses.items(), key=lambda item: -item[1].times)[:_NAMED]
        told = "; ".join(f"{each} ({use.times} times)" for each, use in often)
        return (
            f"The tasks of profile {profile!r} have used {len(uses)} different sets of options in the last hour. Each "
            f"is a separate container pool with cold starts. This task's ({options}) would be one "
            f"more than [modal_executor] max_option_sets = {self._most} allows. Asked for most: {told}. Round what is "
            "computed, deploy a profile with these options, or raise this setting"
        )
