"""Paused profiles: one small text in the Dict of executors' reports, read by every executor every few seconds.

`modalflow profile` writes it. Plain JSON; a reader trusts nothing, and ignores unknown fields. A malformed part costs
no task: it counts as absent, and the reader reports it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from modalflow.protocol.messages import plain_fields
from modalflow.support.described import describe
from modalflow.support.text import ID, LINE, from_json, one_line

#: The key of the text in the Dict. An executor's partition is never called so.
HOLDS = "paused-profiles"
#: The key of a token, there while a command changes the text.
HOLDS_LOCK = "paused-profiles-lock"

#: Seconds between two readings by an executor.
INTERVAL = 5.0

PAUSED, DRAINING = "paused", "draining"

#: Characters of a user's name and of the reason.
LONGEST_NAME = ID
LONGEST_REASON = 300
#: Characters of the whole text: every executor reads it every few seconds, and reports the profiles.
LONGEST = 100_000


@dataclass(frozen=True, slots=True)
class ProfileHold:
    """One paused profile."""

    profile: str
    by: str
    """The user: ``alice@laptop``, or a user of Airflow."""
    since: float
    """Seconds since the epoch, by the clock of the command."""
    reason: str = ""
    mode: str = PAUSED
    """PAUSED, or DRAINING if a user also waits for the end of running work. Executors treat all modes alike."""

    @property
    def label(self) -> str:
        """Its words without the reason: ``paused by alice@laptop since 2026-11-29 17:50 UTC``."""
        word = "drained" if self.mode == DRAINING else "paused"
        return f"{word} by {self.who_and_when}"

    @property
    def who_and_when(self) -> str:
        """Its user and its begin: ``alice@laptop since 2026-11-29 17:50 UTC``."""
        since = datetime.fromtimestamp(self.since, UTC)
        return f"{self.by} since {since:%Y-%m-%d %H:%M} UTC"

    @property
    def advice(self) -> str:
        """How to end it."""
        return f"resume it with `modalflow profile resume {self.profile}`"

    @property
    def short_sentence(self) -> str:
        """Why a task waits, without the user's reason."""
        return f"profile {self.profile} is {self.label}, {self.advice}"

    @property
    def sentence(self) -> str:
        """Why a task waits."""
        reason = f" ({self.reason})" if self.reason else ""
        return f"profile {self.profile} is {self.label}{reason}, {self.advice}"

    @property
    def id(self) -> int:
        """The moment of the command in tenths of a second. An executor that has noticed a hold reports it."""
        # Within the numbers that a snapshot may have, for any time.
        return int(self.since * 10) % 10**11


@dataclass(frozen=True)
class ProfileHolds:
    """All paused profiles."""

    by_profile: Mapping[str, ProfileHold] = field(default_factory=dict)
    problem: str = ""
    """The malformed part; empty if there is none."""

    @property
    def warning(self) -> str:
        """The problem as a sentence with the fix; empty if there is none."""
        if not self.problem:
            return ""
        return (
            f"The record of paused profiles is malformed, and this part of it is ignored: {self.problem}. To write it "
            "again, run `modalflow profile pause NAME` or `modalflow profile resume NAME`"
        )

    def to_json(self) -> str:
        wire = {
            name: {f.name: getattr(hold, f.name) for f in dataclasses.fields(hold) if f.name != "profile"}
            for name, hold in self.by_profile.items()
        }
        return json.dumps({"profiles": wire}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: object) -> ProfileHolds:
        """Return the readable part of a text; nothing is paused for None. Never raises."""
        if text is None:
            return cls()
        try:
            if not isinstance(text, str):
                raise TypeError(f"it is {type(text).__name__}; expected a JSON text")
            if len(text) > LONGEST:
                raise ValueError(f"it has {len(text):,} characters; expected at most {LONGEST:,}")
            wire = from_json(text)["profiles"].items()
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            return cls(problem=one_line(describe(error), LINE))
        found, problem = {}, ""
        for name, each in wire:
            try:
                hold = _hold(name, each)
                found[hold.profile] = hold
            except (TypeError, ValueError) as error:
                problem = problem or one_line(f"profile {name}: {describe(error)}", LINE)
        return cls(found, problem)

    def with_hold(self, hold: ProfileHold) -> ProfileHolds:
        """Return these with another one, instead of an earlier one of its profile."""
        return ProfileHolds({**self.by_profile, hold.profile: hold})

    def without(self, profile: str) -> ProfileHolds:
        """Return these without the hold of a profile."""
        return ProfileHolds({name: hold for name, hold in self.by_profile.items() if name != profile})


def _hold(name: str, wire: Any) -> ProfileHold:
    if not isinstance(wire, dict):
        raise TypeError("expected an object")
    values = plain_fields(ProfileHold, {"by": "an unknown user", **wire, "profile": name})
    if not values.get("since", -1.0) >= 0:
        raise ValueError("since is no time")
    values["profile"] = one_line(name, ID)
    values["mode"] = one_line(values.get("mode", PAUSED), ID)
    values["by"] = one_line(values["by"], LONGEST_NAME)
    values["reason"] = one_line(values.get("reason", ""), LONGEST_REASON)
    return ProfileHold(**values)
