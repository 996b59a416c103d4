"""The entries of a Dict, against a plain dictionary that remembers times."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from modalflow.emulator.dicts import ENTRY_LIFETIME, Entries

KEYS = st.sampled_from([b"a", b"b"])
VALUES = st.binary(max_size=3)


class EntriesMachine(RuleBasedStateMachine):
    """Entries do what a dictionary does, and forget what was not used for their lifetime."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.entries = Entries(clock=lambda: self.now)
        self.model: dict[bytes, tuple[bytes, float]] = {}

    def _live(self) -> dict[bytes, bytes]:
        return {key: value for key, (value, used) in self.model.items() if self.now - used <= ENTRY_LIFETIME}

    @rule(key=KEYS, value=VALUES)
    def put(self, key: bytes, value: bytes) -> None:
        self.entries.put(key, value)
        self.model[key] = (value, self.now)

    @rule(key=KEYS)
    def get(self, key: bytes) -> None:
        expected = self._live().get(key)
        assert self.entries.get(key) == expected
        if expected is not None:
            self.model[key] = (expected, self.now)

    @rule(key=KEYS)
    def pop(self, key: bytes) -> None:
        assert self.entries.pop(key) == self._live().get(key)
        self.model.pop(key, None)

    @rule()
    def snapshot(self) -> None:
        live = self._live()
        assert dict(self.entries.snapshot()) == live
        self.model = {key: (value, self.now) for key, value in live.items()}

    @rule()
    def clear(self) -> None:
        self.entries.clear()
        self.model.clear()

    @rule(part=st.sampled_from([0.1, 0.6]))
    def wait(self, part: float) -> None:
        self.now += part * ENTRY_LIFETIME

    @invariant()
    def holds_what_it_should(self) -> None:
        live = self._live()
        assert len(self.entries) == len(live)
        assert all((key in self.entries) == (key in live) for key in (b"a", b"b"))


TestEntries = EntriesMachine.TestCase


def test_reading_an_entry_keeps_that_one_alone() -> None:
    """An entry that is read lives on; one that came with it and was not read is forgotten at its time."""
    now = 0.0
    entries = Entries(clock=lambda: now)
    entries.put(b"read", b"1")
    entries.put(b"unread", b"2")
    now = 0.6 * ENTRY_LIFETIME
    assert entries.get(b"read") == b"1"
    now = 1.2 * ENTRY_LIFETIME
    assert b"read" in entries and b"unread" not in entries
    assert len(entries) == 1
