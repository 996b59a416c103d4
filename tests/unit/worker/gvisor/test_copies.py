"""The copies that a prepared fork makes of its memory."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from modalflow.worker.gvisor import copies

MIB = 1 << 20


@pytest.fixture(autouse=True)
def gvisor(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Be in gVisor, with no list of the memory yet, and leave none."""
    monkeypatch.setattr(copies, "is_in_gvisor", lambda: True)
    copies.list_own_memory.cache_clear()
    yield
    copies.list_own_memory.cache_clear()


def test_copied_memory_keeps_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of it is written, as gVisor copies them, with what was there."""
    content = bytes(range(256)) * (6 * MIB // 256)
    memory = ctypes.create_string_buffer(content, len(content))
    written: list[int] = []
    write_back = copies._write_back

    def noted(addresses: Sequence[int], pid: int) -> None:
        written.extend(addresses)
        write_back(addresses, pid)

    monkeypatch.setattr(copies, "_write_back", noted)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        copies.copy_own_memory(until=ours)
    assert memory.raw == content
    begin = ctypes.addressof(memory)
    assert sum(begin <= address < begin + len(content) for address in written) >= 2


def test_the_order_ends_the_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is already there writes to its memory by itself."""
    written: list[int] = []
    monkeypatch.setattr(copies, "_write_back", lambda addresses, pid: written.extend(addresses))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"order")
        copies.copy_own_memory(until=ours)
    assert not written


def test_memory_that_is_gone_is_left_out() -> None:
    """A mapping may end between the list of them and the copy."""
    with mmap.mmap(-1, MIB) as gone:
        address = ctypes.addressof(ctypes.c_char.from_buffer(gone))
    copies._write_back([address], os.getpid())
    copies._write_back([0], os.getpid())


def test_the_data_of_libraries_is_left_out() -> None:
    """They are many small mappings, and a task writes to few of them."""
    listed = set(copies.list_own_memory())
    small = {
        int(begin, 16)
        for begin, end in (line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines())
        if int(end, 16) - int(begin, 16) < 256 << 10
    }
    assert listed
    assert not listed & small
