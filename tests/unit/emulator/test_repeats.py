"""Calls that are repeated: which are answered as before, and that nobody forgot to say."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from grpclib.const import Cardinality

from modalflow.emulator.options import Options
from modalflow.emulator.rpc.dispatcher import rpc_table
from modalflow.emulator.rpc.repeats import ANEW, CHANGES, DELIVERIES, READS
from modalflow.emulator.server import ControlPlane


@pytest.fixture
async def implemented(tmp_path: Path) -> AsyncIterator[frozenset[str]]:
    """The RPCs with one answer that some service answers."""
    control_plane = ControlPlane(Options(state_dir=tmp_path))
    yield frozenset(
        name for name in control_plane.dispatcher.implemented if rpc_table()[name] is Cardinality.UNARY_UNARY
    )
    await control_plane.close()


async def test_of_each_rpc_it_is_said_what_a_repetition_gets(implemented: frozenset[str]) -> None:
    """An RPC that is answered here stands in exactly one list of repeats.py: a new one has to be thought about."""
    lists = (CHANGES, READS, frozenset(ANEW), frozenset(DELIVERIES))
    assert implemented - frozenset().union(*lists) == set(), "in no list of repeats.py"
    assert [name for name in implemented if sum(name in each for each in lists) > 1] == [], "in two lists of repeats.py"
