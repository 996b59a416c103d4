"""The check of calls against paused profiles before their submission. No I/O and no clock.

Owns the paused profiles as last read. ``ProfileWatch`` renews them.
"""

from __future__ import annotations

from collections.abc import Mapping

from modalflow.executor.holds.verdict import Verdict, is_limited
from modalflow.executor.lifecycle.call import Call
from modalflow.protocol.profile_holds import ProfileHold


class ProfileGate:
    """Holds the calls of paused profiles."""

    def __init__(self) -> None:
        self.holds: Mapping[str, ProfileHold] = {}

    def verdict(self, call: Call) -> Verdict | None:
        """Return the verdict on a call; None if its profile is not paused."""
        if not self.holds or call.submission is None or not is_limited(call):
            return None
        hold = self.holds.get(call.submission.profile)
        if hold is None:
            return None
        return Verdict(hold.sentence, hold.short_sentence, "its profile is resumed", paused_profile=hold.profile)
