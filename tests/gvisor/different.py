"""Tests that cannot pass in gVisor, each with its reason: they must fail there.

The one place for such tests. A test that passes although it is named here fails, and its row has to go.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping

import pytest

from tests.support import in_gvisor

_PIPES = "its pipes do not hold single writes (O_DIRECT), see docs/logs.md"

#: Tests with containers in gVisor: id of a test, without parameters if all of them are meant → the reason.
WITH_CONTAINERS: Mapping[str, str] = {
    "tests/integration/test_output.py::test_both_streams_of_a_command_are_in_the_order_of_the_writes": _PIPES,
}

#: Tests that run in gVisor themselves.
INSIDE: Mapping[str, str] = {
    "tests/unit/worker/run/test_output_pipes.py::test_the_order_of_both_streams_is_that_of_the_writes": _PIPES,
}

#: What gVisor answers to uname(2).
_VERSION = "#1 SMP Sun Jan 10 15:06:54 PST 2016"


def expect_failures(items: Iterable[pytest.Item]) -> None:
    """Let the tests of the tables fail in gVisor, and no others."""
    rows = {**(WITH_CONTAINERS if in_gvisor() else {}), **(INSIDE if os.uname().version == _VERSION else {})}
    for item in items:
        reason = rows.get(item.nodeid) or rows.get(item.nodeid.partition("[")[0])
        if reason:
            item.add_marker(pytest.mark.xfail(reason=f"in gVisor: {reason}", strict=True))
