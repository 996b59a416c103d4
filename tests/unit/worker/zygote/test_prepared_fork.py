"""The copies that a prepared fork makes of its memory."""

from __future__ import annotations

import ctypes
import mmap
import socket

import pytest

from modalflow.worker.zygote import prepared

MIB = 1 << 20


def test_copied_memory_keeps_its_content(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of it is written, as gVisor copies them, with what was there."""
    content = bytes(range(256)) * (6 * MIB // 256)
    memory = ctypes.create_string_buffer(content, len(content))
    written: list[int] = []
    write_back = prepared._write_back
    monkeypatch.setattr(prepared, "_is_in_gvisor", lambda: True)

    def noted(address: int) -> None:
        written.append(address)
        write_back(address)

    monkeypatch.setattr(prepared, "_write_back", noted)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        prepared.copy_own_memory(until=ours)
    assert memory.raw == content
    begin = ctypes.addressof(memory)
    assert sum(begin <= address < begin + len(content) for address in written) >= 2


def test_the_order_ends_the_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task does not wait for memory that it may never write to."""
    written: list[int] = []
    monkeypatch.setattr(prepared, "_is_in_gvisor", lambda: True)
    monkeypatch.setattr(prepared, "_write_back", written.append)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.send(b"order")
        prepared.copy_own_memory(until=ours)
    assert not written


def test_memory_that_is_gone_is_left_out() -> None:
    """A mapping may end between the list of them and the copy."""
    with mmap.mmap(-1, MIB) as gone:
        address = ctypes.addressof(ctypes.c_char.from_buffer(gone))
    prepared._write_back(address)
    prepared._write_back(0)
