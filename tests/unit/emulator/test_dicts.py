"""The entries of a Dict, against a plain dictionary that remembers times; over restarts too."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from grpclib import GRPCError, Status
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from modal_proto import api_pb2

from modalflow.emulator.rpc.service import Caller
from modalflow.emulator.services import dicts as module
from modalflow.emulator.services.dicts import ENTRY_LIFETIME, USE_NOTED_AFTER, DictEntries, DictRecords, Dicts
from modalflow.emulator.services.environments import Environments
from modalflow.emulator.state.journal import Journal
from tests.support import killed

KEYS = st.sampled_from([b"a", b"b"])
VALUES = st.binary(max_size=3)


class EntriesMachine(RuleBasedStateMachine):
    """Entries do what a dictionary does, forget what was not used for their lifetime, and survive a kill."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.parent = tempfile.TemporaryDirectory()
        self.folder = Path(self.parent.name, "first")
        self.folder.mkdir()
        self.journal = Journal(self.folder)
        self.entries = self._opened()
        self.model: dict[bytes, tuple[bytes, float]] = {}

    def teardown(self) -> None:
        self.journal.close()
        self.parent.cleanup()

    def _opened(self) -> DictEntries:
        records = DictRecords(self.journal)
        return DictEntries(lambda: self.now, records, "di-1", records.load().get("di-1", ()))

    @rule()
    def kill(self) -> None:
        before, self.folder = self.journal, killed(self.folder)
        self.journal = Journal(self.folder)
        before.close()
        self.entries = self._opened()

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
TestEntries.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)


def test_a_use_is_written_now_and_then(tmp_path: Path) -> None:
    """Reads within the granularity write nothing, a later one does; a restart never makes an entry die too early."""
    now = 0.0
    journal = Journal(tmp_path)
    records = DictRecords(journal)
    entries = DictEntries(lambda: now, records, "di-1")
    entries.put(b"k", b"v")
    changes = journal._connection.total_changes if journal._connection else 0
    now = USE_NOTED_AFTER - 1
    entries.get(b"k")
    assert journal._connection and journal._connection.total_changes == changes
    again = DictEntries(lambda: now, records, "di-1", records.load()["di-1"])
    now += ENTRY_LIFETIME
    assert b"k" in again
    now = USE_NOTED_AFTER + 1
    entries.get(b"k")
    assert journal._connection.total_changes == changes + 1
    assert records.load()["di-1"][0][1].noted == now
    entries.pop(b"k")
    assert records.load() == {} and not list(journal.read("dict_uses"))
    journal.close()


def test_reading_an_entry_keeps_that_one_alone() -> None:
    """An entry that is read lives on; one that came with it and was not read is forgotten at its time."""
    now = 0.0
    entries = DictEntries(clock=lambda: now)
    entries.put(b"read", b"1")
    entries.put(b"unread", b"2")
    now = 0.6 * ENTRY_LIFETIME
    assert entries.get(b"read") == b"1"
    now = 1.2 * ENTRY_LIFETIME
    assert b"read" in entries and b"unread" not in entries
    assert len(entries) == 1


async def test_limits_are_for_the_whole_update(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry above 100 MiB is refused, with all that came with it, in the words that the SDK knows it by."""
    assert (module.MAX_ITEM_BYTES, module.MAX_ENTRIES_PER_UPDATE) == (100 * 2**20, 10_000)
    monkeypatch.setattr(module, "MAX_ITEM_BYTES", 100)
    monkeypatch.setattr(module, "MAX_REPORTED_LENGTH", 3)
    dicts, caller = (
        Dicts(Environments(Journal()), Journal()),
        Caller(container_id=None, client_version="", idempotency_key=None),
    )
    made = await dicts.DictGetOrCreate(
        api_pb2.DictGetOrCreateRequest(
            deployment_name="d", object_creation_type=api_pb2.OBJECT_CREATION_TYPE_CREATE_IF_MISSING
        ),
        caller,
    )

    async def update(**entries: bytes) -> None:
        updates = [api_pb2.DictEntry(key=key.encode(), value=value) for key, value in entries.items()]
        await dicts.DictUpdate(api_pb2.DictUpdateRequest(dict_id=made.dict_id, updates=updates), caller)

    async def length() -> int:
        return (await dicts.DictLen(api_pb2.DictLenRequest(dict_id=made.dict_id), caller)).len

    await update(a=bytes(99))
    with pytest.raises(GRPCError, match=r"status = '413'") as refused:
        await update(b=b"", c=bytes(100))
    assert refused.value.status is Status.INVALID_ARGUMENT
    assert await length() == 1
    await update(b=b"", c=b"", d=b"", e=b"")
    assert await length() == 3, "the SDK: len() returns at most 100,000"
