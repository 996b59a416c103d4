"""Rules: specifications at work. Each counts what it concerns, draws its own random numbers and keeps what it did.

Owns reproducibility: what a rule does at the n-th occasion of a subject (an RPC, a Queue, a function) follows from the
seed, the rule and the subject alone, whatever else goes on.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

from modalflow.emulator.faults.kinds import Scope
from modalflow.emulator.faults.spec import Spec, parse

log = logging.getLogger(__name__)

#: Injections of a rule that can be listed, the newest.
REMEMBERED = 100


@dataclass(frozen=True)
class Injection:
    """One fault that happened."""

    at: float
    subject: str
    occasion: int
    """Which of the rule's occasions with that subject it was, from 1 on."""
    what: str


@dataclass(frozen=True)
class Turn:
    """A fault that is to happen: at which occasion of the subject, and with which random numbers."""

    subject: str
    occasion: int
    random: Random


@dataclass
class _Stream:
    random: Random
    seen: int = 0
    happened: int = 0


@dataclass(eq=False)
class Rule:
    """A specification with what it has done so far."""

    rule_id: str
    spec: Spec
    seed: str
    last: deque[Injection] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    happened: int = 0
    seen: int = 0
    _streams: dict[str, _Stream] = field(default_factory=dict)

    def happens(self, subject: str) -> Turn | None:
        """Count an occasion; return the fault that is to happen now, None if none is."""
        options = self.spec.options
        stream = self._streams.get(subject)
        if stream is None:
            stream = self._streams[subject] = _Stream(Random(f"{self.seed}/{subject}"))
        self.seen += 1
        stream.seen += 1
        place = stream.seen - options.get("after", 0) - 1
        if place < 0 or place % options.get("every", 1) or stream.happened >= options.get("count", stream.seen):
            return None
        if "p" in options and stream.random.random() >= options["p"]:
            return None
        stream.happened += 1
        return Turn(subject, stream.seen, stream.random)

    def note(self, turn: Turn, what: str) -> None:
        """Keep and log that the fault happened."""
        self.happened += 1
        self.last.append(Injection(time.time(), turn.subject, turn.occasion, what))
        log.info("fault %s (%s) on %s: %s", self.rule_id, self.spec.text, turn.subject, what)

    def report(self) -> dict[str, Any]:
        """Describe the rule in plain data, for a listing."""
        return {
            "id": self.rule_id,
            "spec": self.spec.text,
            "seen": self.seen,
            "happened": self.happened,
            "last": [vars(injection) for injection in self.last],
        }


class Rules:
    """All rules of a control plane, in the order in which they were added."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._rules: dict[str, Rule] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Rule]:
        return iter(list(self._rules.values()))

    def of(self, *scopes: Scope) -> tuple[Rule, ...]:
        return tuple(rule for rule in self._rules.values() if rule.spec.scope in scopes)

    def add(self, text: str) -> Rule:
        """Add a rule; FaultSpecError if the text cannot be read.

        A second rule of the same text has random numbers of its own.
        """
        spec = parse(text)
        same = sum(rule.spec.text == spec.text for rule in self._rules.values())
        rule = Rule(f"f{next(self._numbers)}", spec, f"{self.seed}/{spec.text}/{same}")
        self._rules[rule.rule_id] = rule
        return rule

    def clear(self, rule_ids: Iterable[str] | None = None) -> list[Rule]:
        """Remove these rules, or all; KeyError, with nothing removed, for an unknown id. Return what was removed."""
        chosen = list(self._rules) if rule_ids is None else list(dict.fromkeys(rule_ids))
        removed = [self._rules[rule_id] for rule_id in chosen]
        for rule in removed:
            del self._rules[rule.rule_id]
        return removed
