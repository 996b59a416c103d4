"""The wait of one FunctionGetOutputs, which checks each output once.

Owns the search: a call may have a hundred thousand inputs, and each result makes every waiting request search again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from typing import Protocol

#: Up to this many indices are looked up one by one at each check. The SDK reads spawned maps in ranges of 49
#: (``enumerate`` in modal/_functions.py), with one request each: a search through all outputs would be quadratic.
FEW = 200


class AwaitedOutput(Protocol):
    """An output."""

    @property
    def idx(self) -> int: ...


class AwaitedInput(Protocol):
    """An input."""

    @property
    def idx(self) -> int: ...

    @property
    def done(self) -> bool: ...

    @property
    def place(self) -> int: ...


class AwaitedCall(Protocol):
    """The part of a function call that a wait needs. Inputs and outputs are only ever added."""

    @property
    def inputs(self) -> Mapping[str, AwaitedInput]: ...

    @property
    def by_idx(self) -> Sequence[AwaitedInput] | None: ...

    @property
    def outputs(self) -> Sequence[AwaitedOutput]: ...

    @property
    def cleared(self) -> set[int]: ...


class OutputWait:
    """The outputs of a call after one place, of the inputs from ``first`` to ``last`` (None: no bound)."""

    def __init__(self, call: AwaitedCall, after: int, first: int | None, last: int | None) -> None:
        self._call = call
        self._first, self._last = first, last
        self._after = self._checked = after
        self._found: list[int] = []
        self._checked_inputs = 0
        self._unfinished: list[AwaitedInput] = []

    def is_over(self) -> bool:
        """Return whether there is an output, or, for a request with indices, none will come any more."""
        return bool(self.places()) or self._is_settled()

    def places(self) -> list[int]:
        """Return the places of the outputs that have come and were not cleared."""
        outputs, cleared = self._call.outputs, self._call.cleared
        few = self._few()
        if few is not None:
            places = (item.place for item in few if item.done)
            return sorted(place for place in places if place >= self._after and place not in cleared)
        new = range(self._checked, len(outputs))
        self._found += [p for p in new if p not in cleared and self._is_within(outputs[p].idx)]
        self._checked = max(self._checked, len(outputs))
        return [place for place in self._found if place not in cleared] if cleared else self._found

    def _is_settled(self) -> bool:
        inputs = self._call.inputs
        if self._first is None or not inputs:
            return False
        few = self._few()
        if few is not None:
            return all(item.done for item in few)
        if len(inputs) > self._checked_inputs:
            new = islice(inputs.values(), self._checked_inputs, None)
            self._unfinished += [item for item in new if self._is_within(item.idx)]
            self._checked_inputs = len(inputs)
        while self._unfinished and self._unfinished[-1].done:
            self._unfinished.pop()
        return not self._unfinished

    def _few(self) -> Sequence[AwaitedInput] | None:
        """Return the requested inputs, None if they are too many or cannot be looked up."""
        by_idx, first, last = self._call.by_idx, self._first, self._last
        if by_idx is None or first is None or last is None or not 0 <= last - first < FEW:
            return None
        return by_idx[max(first, 0) : max(last + 1, 0)]

    def _is_within(self, idx: int) -> bool:
        return (self._first is None or idx >= self._first) and (self._last is None or idx <= self._last)
