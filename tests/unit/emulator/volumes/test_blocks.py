"""The blocks that volumes consist of: who uses them, when they go."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest

from modalflow.emulator.volumes import blocks
from modalflow.emulator.volumes.blocks import UNUSED_SECONDS, BlockStore
from tests.support import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> BlockStore:
    return BlockStore(tmp_path, clock)


def test_a_block_goes_a_while_after_its_last_user(store: BlockStore, clock: Clock) -> None:
    """Kept twice, a block survives one release; after the second it stays for downloads under way, then goes."""
    block = store.keep(b"data")
    assert store.keep(b"data") == block
    store.release([block])
    clock.now += 2 * UNUSED_SECONDS
    store.release([])
    assert store.path(block).read_bytes() == b"data"
    store.release([block])
    clock.now += UNUSED_SECONDS / 2
    store.release([])
    assert store.path(block).exists()
    clock.now += UNUSED_SECONDS
    store.release([])
    assert not store.path(block).exists()


def test_a_block_that_is_used_again_stays(store: BlockStore, clock: Clock) -> None:
    """An unused block that finds a new user before it goes does not go."""
    block = store.keep(b"data")
    store.release([block])
    assert store.use([block]) == []
    clock.now += 2 * UNUSED_SECONDS
    store.release([])
    assert store.path(block).exists()


def test_missing_blocks_are_named_and_none_is_used(store: BlockStore, clock: Clock) -> None:
    """If one of several blocks is missing, it is named and the others get no user from this."""
    block = store.keep(b"data")
    missing = hashlib.sha256(b"other").hexdigest()
    assert store.use([block, missing]) == [missing]
    store.release([block])
    clock.now += 2 * UNUSED_SECONDS
    store.release([])
    assert not store.path(block).exists()


def test_an_upload_must_be_what_it_says(store: BlockStore, tmp_path: Path) -> None:
    """A block with another content than announced is refused, the right one is there for its first user."""
    uploaded = tmp_path / "uploaded"
    uploaded.write_bytes(b"data")
    expected = hashlib.sha256(b"data").hexdigest()
    with pytest.raises(ValueError, match="expected"):
        store.receive(uploaded, hashlib.sha256(b"other").hexdigest())
    store.receive(uploaded, expected)
    assert store.use([expected]) == []


def test_a_stream_is_cut_into_blocks(store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of the fixed size and one for the rest; written out they are the stream again, zeros restored."""
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 4)
    kept, size = store.keep_stream(io.BytesIO(b"0123456789"))
    assert [store.path(block).read_bytes() for block in kept] == [b"0123", b"4567", b"89"]
    store.write_file(kept, size, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == b"0123456789"
    trimmed = (store.keep(b"a"), store.keep(b""), store.keep(b"b"))
    store.write_file(trimmed, 10, tmp_path / "zeros")
    assert (tmp_path / "zeros").read_bytes() == b"a\0\0\0\0\0\0\0b\0"
