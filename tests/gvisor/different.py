"""Tests that cannot pass in gVisor, each with its reason: they must fail there.

The one place for such tests. A test that passes although it is named here fails, and its row has to go.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest

#: What gVisor does differently: the id of a test, without parameters if all of them are meant → the reason.
DIFFERENT: Mapping[str, str] = {
    **dict.fromkeys(
        (
            "tests/unit/worker/run/test_output_pipes.py::test_the_order_of_both_streams_is_that_of_the_writes",
            "tests/integration/test_output.py::test_both_streams_of_a_command_are_in_the_order_of_the_writes",
        ),
        "its pipes do not hold single writes (O_DIRECT), see docs/logs.md",
    ),
}


def expect_failures(items: Iterable[pytest.Item]) -> None:
    """Let the tests of the table fail, and no others."""
    for item in items:
        reason = DIFFERENT.get(item.nodeid) or DIFFERENT.get(item.nodeid.partition("[")[0])
        if reason:
            item.add_marker(pytest.mark.xfail(reason=f"in gVisor: {reason}", strict=True))
