"""The blocks that volumes consist of: who uses them, when they go."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from modalflow.emulator.volumes import block_store
from modalflow.emulator.volumes.block_store import UNUSED_SECONDS, BlockStore
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


def test_blocks_are_written_out_with_their_zeros(
    store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client uploads blocks without the zeros at their ends: in the file these are there."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 4)
    trimmed = (store.keep(b"a"), store.keep(b""), store.keep(b"b"))
    store.write_file(trimmed, 10, tmp_path / "zeros")
    assert (tmp_path / "zeros").read_bytes() == b"a\0\0\0\0\0\0\0b\0"


def test_several_threads_keep_blocks_at_once(store: BlockStore) -> None:
    """The same blocks kept by many threads are whole, and have as many users."""
    contents = [os.urandom(100) for _ in range(50)]
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda _: [store.keep(content) for content in contents], range(8)))
    assert kept == [kept[0]] * 8
    assert [store.path(block).read_bytes() for block in kept[0]] == contents
    for blocks_of_one in kept[1:]:
        store.release(blocks_of_one)
    assert store.use(kept[0]) == []


def test_a_larger_file_is_kept_in_one_piece(store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its blocks are found in it; of the same file, changed in one place, only that is hashed and written."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 100)
    path = tmp_path / "file"
    path.write_bytes(os.urandom(950))
    with path.open("r+b") as file:
        kept, size = store.keep_file(file.fileno())
        assert len({store.locate(block)[0] for block in kept}) == 1
        file.seek(500)
        file.write(b"changed")
        file.flush()
        changed, _ = store.keep_file(file.fileno(), kept)
    assert [n for n in range(10) if kept[n] != changed[n]] == [5]
    for content in (kept, changed):
        store.write_file(content, size, tmp_path / "copy")
        store.assemble(content, size)
    assert (tmp_path / "copy").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("trusted", [0, 2])
def test_blocks_of_an_earlier_content_may_be_gone(
    store: BlockStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trusted: int
) -> None:
    """Of a file whose earlier blocks nothing used for a while, all that is gone is read anew."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 4)
    path = tmp_path / "file"
    path.write_bytes(b"aaaabbbbc")
    with path.open("rb") as file:
        known, _ = store.keep_file(file.fileno())
        store.release(known)
        clock.now += 2 * UNUSED_SECONDS
        store.release([])
        clock.now += 2 * UNUSED_SECONDS
        store.release([])
        kept, size = store.keep_file(file.fileno(), known, trusted)
    assert kept == known
    store.write_file(kept, size, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == b"aaaabbbbc"


def test_what_was_put_together_is_found_again(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a restart the blocks of a larger file are where they were; one that nothing uses goes."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 4)
    store = BlockStore(tmp_path, clock)
    kept, gone = ((store.keep(b"aaaa"), store.keep(b"bb")), (store.keep(b"cccc"), store.keep(b"dd")))
    for content in (kept, gone):
        store.assemble(content, 6)
    clock.now += 2 * UNUSED_SECONDS
    store.release([])
    assert not any(store.path(block).exists() for block in (*kept, *gone))
    again = BlockStore(tmp_path, clock)
    # Another file has the first block of one of them, which is nowhere else.
    again.restore(kept[:1])
    again.restore_large_files()
    again.write_file(kept[:1], 4, tmp_path / "copy")
    again.release([])
    assert (tmp_path / "copy").read_bytes() == b"aaaa"
    assert len(list((tmp_path / "wholes").iterdir())) == 2


def test_a_block_that_comes_back_stays(store: BlockStore, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block whose larger file went, and which is then used again, is not removed with what it was before."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 4)
    content = (store.keep(b"aaaa"), store.keep(b"bb"))
    store.assemble(content, 6)
    store.release(content)
    clock.now += 1.1 * UNUSED_SECONDS
    store.release([])
    again = store.keep(b"aaaa")
    for _ in range(3):
        clock.now += 1.1 * UNUSED_SECONDS
        store.release([])
    path, _ = store.locate(again)
    assert path.read_bytes().startswith(b"aaaa")


def test_a_larger_file_is_kept_again_after_some_of_its_blocks_had_no_users(
    store: BlockStore, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that grew shares blocks with what it was: the earlier content can be kept anew and read, also after a
    restart at which only the shared blocks had users."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 100)
    source, out = tmp_path / "source", tmp_path / "out"

    def keep(into: BlockStore, content: bytes, known: tuple[str, ...] = ()) -> tuple[str, ...]:
        source.write_bytes(content)
        with source.open("rb") as file:
            return into.keep_file(file.fileno(), known)[0]

    def read(of: BlockStore, names: tuple[str, ...], size: int) -> bytes:
        of.write_file(names, size, out)
        return out.read_bytes()

    short = bytes(range(250))
    before = keep(store, short)
    grown = keep(store, short + b"more", before)
    store.release(before)
    clock.now += 2 * UNUSED_SECONDS
    store.release([])
    assert read(store, keep(store, short), 250) == short
    assert read(store, grown, 254) == short + b"more"
    later = BlockStore(tmp_path, clock)
    later.restore(grown)
    later.restore_large_files()
    assert read(later, keep(later, short), 250) == short


def test_a_file_that_is_cut_off_takes_nothing_from_its_copies(
    store: BlockStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files share blocks; one is truncated within a block, kept and put together: the other one stays whole."""
    monkeypatch.setattr(block_store, "BLOCK_BYTES", 100)
    source, out = tmp_path / "source", tmp_path / "out"
    content = bytes(range(1, 251)) + bytes(50)

    def keep(size: int, known: tuple[str, ...] = ()) -> tuple[str, ...]:
        source.write_bytes(content[:size])
        with source.open("rb") as file:
            return store.keep_file(file.fileno(), known)[0]

    whole = keep(300)
    for size in (230, 260):
        part = keep(size, whole)
        store.assemble(part, size)
        for names, length in ((whole, 300), (part, size)):
            store.write_file(names, length, out)
            assert out.read_bytes() == content[:length]
