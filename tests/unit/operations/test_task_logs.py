"""Which tries have a log, read off the names on the logs Volume."""

from __future__ import annotations

from modalflow.names import TRY_LOG
from modalflow.operations import task_logs


def test_names_of_another_form_are_no_tries() -> None:
    """A container can put any name there: digits that are no numbers, and numbers without an end, are left out."""
    endless = f"attempt={'9' * 200}.log"
    names = ["attempt=10.log", "attempt=2.log", "attempt=².log", endless, "attempt=1", "xattempt=1.log"]
    assert task_logs._numbers(TRY_LOG, names) == [2, 10]
