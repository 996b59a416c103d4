"""What one FunctionGetOutputs waits for, found without looking twice at what there is.

Owns the looking: a call may have a hundred thousand inputs, and whoever waits for one looks again at each result.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol


class HasIndex(Protocol):
    """An output."""

    @property
    def idx(self) -> int: ...


class HasEnd(Protocol):
    """An input."""

    @property
    def idx(self) -> int: ...

    @property
    def done(self) -> bool: ...


class Call(Protocol):
    """What is looked at of a function call. Inputs and outputs are only ever added."""

    @property
    def inputs(self) -> Mapping[str, HasEnd]: ...

    @property
    def outputs(self) -> Sequence[HasIndex]: ...

    @property
    def cleared(self) -> set[int]: ...


class Awaited:
    """The outputs of a call behind one place in them, of the inputs from ``first`` to ``last`` (None: no bound)."""

    def __init__(self, call: Call, after: int, first: int | None, last: int | None) -> None:
        self._call = call
        self._first, self._last = first, last
        self._looked_at = after
        self._found: list[int] = []
        self._inputs_looked_at = 0
        self._unfinished: list[HasEnd] = []

    def look(self) -> bool:
        """Whether there is an output, or, where inputs were asked for by their indices, none will come any more."""
        return bool(self.places()) or self._is_settled()

    def places(self) -> list[int]:
        """The places of the outputs that are there and were not cleared."""
        outputs, cleared = self._call.outputs, self._call.cleared
        new = range(self._looked_at, len(outputs))
        self._found += [p for p in new if p not in cleared and self._is_within(outputs[p].idx)]
        self._looked_at = max(self._looked_at, len(outputs))
        return [place for place in self._found if place not in cleared] if cleared else self._found

    def _is_settled(self) -> bool:
        inputs = self._call.inputs
        if self._first is None or not inputs:
            return False
        if len(inputs) > self._inputs_looked_at:
            new = islice(inputs.values(), self._inputs_looked_at, None)
            self._unfinished += [item for item in new if self._is_within(item.idx)]
            self._inputs_looked_at = len(inputs)
        while self._unfinished and self._unfinished[-1].done:
            self._unfinished.pop()
        return not self._unfinished

    def _is_within(self, idx: int) -> bool:
        return (self._first is None or idx >= self._first) and (self._last is None or idx <= self._last)
