"""Rules: specifications in effect, each with its own counters, random numbers and record of injections.

Owns reproducibility: what a rule does at the n-th occasion of a subject (an RPC, a Queue, a function) depends only on
the seed, the rule and the subject.
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

from modalflow.emulator.faults.injection import Injection
from modalflow.emulator.faults.spec.fault_spec import FaultSpec, parse
from modalflow.emulator.faults.spec.kinds import Scope

log = logging.getLogger(__name__)

#: The newest injections of a rule, which can be listed.
REMEMBERED = 100


@dataclass(frozen=True)
class Occurrence:
    """A fault that is due: the occasion of its subject, and the random numbers for it."""

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
    """A specification and its effects so far."""

    rule_id: str
    spec: FaultSpec
    seed: str
    last: deque[Injection] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    happened: int = 0
    seen: int = 0
    _streams: dict[str, _Stream] = field(default_factory=dict)

    def draw(self, subject: str) -> Occurrence | None:
        """Count an occasion; return the fault that is due now, None for none."""
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
        return Occurrence(subject, stream.seen, stream.random)

    def record(self, occurrence: Occurrence, what: str) -> None:
        """Record and log that the fault happened."""
        self.happened += 1
        self.last.append(Injection(time.time(), occurrence.subject, occurrence.occasion, what))
        log.info("fault %s (%s) on %s: %s", self.rule_id, self.spec.text, occurrence.subject, what)

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
    """All rules of a control plane, oldest first."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self._rules: dict[str, Rule] = {}
        self._numbers = itertools.count(1)

    def __iter__(self) -> Iterator[Rule]:
        return iter(list(self._rules.values()))

    def of(self, *scopes: Scope) -> tuple[Rule, ...]:
        return tuple(rule for rule in self._rules.values() if rule.spec.scope in scopes)

    def add(self, text: str) -> Rule:
        """Add a rule; FaultSpecError for an invalid specification.

        A second rule with the same text has random numbers of its own.
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
