"""Addresses that carry what they allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.services import addresses as addresses_module
from modalflow.emulator.services.addresses import Addresses
from modalflow.emulator.state.state_dir import StateDir


def made(folder: Path | None) -> Addresses:
    state = StateDir(folder)
    found = Addresses(state)
    found.listen("127.0.0.1", 4711)
    state.close()
    return found


def test_an_address_outlives_the_control_plane(tmp_path: Path) -> None:
    """Made before a restart it is good after it, and leads to the same port, as long as the folder is the same."""
    token = made(tmp_path / "a").token("block", "ab", 7)
    again = made(tmp_path / "a")
    assert again.read(token) == ["block", "ab", 7]
    assert Addresses(StateDir(tmp_path / "a")).port == 4711
    assert (tmp_path / "a" / "addresses.json").stat().st_mode & 0o777 == 0o600
    assert made(tmp_path / "b").read(token) == []
    assert made(None).read(token) == []


def test_nobody_else_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is changed, cut, empty or too old allows nothing."""
    addresses = made(tmp_path)
    token, other = addresses.token("file", "a"), addresses.token("file", "b")
    said, _, signature = token.partition(".")
    for forged in ("", ".", said, f"{other.partition('.')[0]}.{signature}", f"{said}.{'0' * 64}", f"é.{signature}"):
        assert addresses.read(forged) == []
    assert addresses.read(token) == ["file", "a"]
    monkeypatch.setattr(addresses_module, "ADDRESS_LIFETIME", -1.0)
    assert addresses.read(addresses.token("file", "a")) == []
