"""The place of objects that a zygote makes while it imports."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from modalflow.worker.gvisor import heap

PROGRAM = """
import os
os.environ["MODAL_FUNCTION_RUNTIME"] = "gvisor"
from modalflow.worker.gvisor.heap import in_one_piece

def heap():
    with open("/proc/self/maps") as maps:
        [line] = [line for line in maps if line.endswith("[heap]\\n")]
    return range(*(int(each, 16) for each in line.split()[0].split("-")))

def objects():
    return [(number, str(number)) for number in range(50_000)]

def inside(made):
    where = heap()
    return sum(id(each) in where for each in made) / len(made)

def deep(n):
    return n and deep(n - 1)

with in_one_piece():
    first = objects()
    for _ in range(3):
        deep(500)
    gone = objects()
    del gone
share = inside(first)
later = [objects() for _ in range(5)]
print(share, min(inside(each) for each in later))
del first, later
print(len(objects()))
"""


def test_objects_of_the_context_are_in_one_mapping_and_later_ones_are_not() -> None:
    """And the memory of both can be freed."""
    run = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=True)
    shares, count = run.stdout.splitlines()
    inside, later = map(float, shares.split())
    assert inside > 0.8
    assert later < 0.5
    assert count == "50000"


@pytest.mark.parametrize("variable", [{"PYTHONMALLOC": "debug"}, {"PYTHONTRACEMALLOC": "1"}], ids=str)
def test_a_process_whose_memory_is_checked_or_traced_keeps_its_own(variable: dict[str, str]) -> None:
    """The functions for that take no other context, and the process would crash."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ | variable,
    )
    assert (run.returncode, run.stdout.splitlines()[-1:]) == (0, ["50000"]), run.stderr


def test_outside_gvisor_a_process_gets_no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only there they help."""
    monkeypatch.setattr(heap, "is_in_gvisor", lambda: False)
    assert heap.variables() == {}
    monkeypatch.setattr(heap, "is_in_gvisor", lambda: True)
    assert heap.variables()
