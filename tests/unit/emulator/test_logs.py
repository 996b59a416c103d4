"""Log entries: order, filters, batches."""

from __future__ import annotations

import time

from modal_proto import api_pb2

from modalflow.emulator.logs.app_log import AppLog, LogFilter
from modalflow.emulator.logs.log_messages import batches
from modalflow.emulator.logs.log_records import LogRecords
from modalflow.emulator.state.journal import Journal

OUT, ERR = api_pb2.FILE_DESCRIPTOR_STDOUT, api_pb2.FILE_DESCRIPTOR_STDERR


def filled() -> AppLog:
    log = AppLog("ap-1", LogRecords(Journal()))
    for number in range(3):
        log.add(f"{number}\n", OUT, container_id="ta-1", function_id="fu-v", root_function_id="fu-1", input_id="in-1")
    log.add("other\n", ERR, container_id="ta-2", function_id="fu-1", root_function_id="fu-1", function_call_id="fc-2")
    return log


def test_after_gives_what_is_newer() -> None:
    """A reader that says how far it got gets the rest, in order."""
    log = filled()
    assert [e.data for e in log.after(2)] == ["2\n", "other\n"]
    assert log.after(4) == []


def test_filters() -> None:
    """A function's log holds its variants'; every field that is set has to fit."""
    entries = filled().after(0)
    assert sum(LogFilter(function_id="fu-1").match(e) for e in entries) == 4
    assert sum(LogFilter(parametrized_function_id="fu-v").match(e) for e in entries) == 3
    assert sum(LogFilter(source=ERR, container_id="ta-2").match(e) for e in entries) == 1
    assert sum(LogFilter(text="1", function_call_id="fc-2").match(e) for e in entries) == 0


def test_time_ranges_are_half_open() -> None:
    """An entry at the end of a range belongs to the next one: neighbouring ranges show it once."""
    log = filled()
    stamp = log.after(0)[1].timestamp_ns
    everything = LogFilter()
    early = [e.number for e in log.between(0, stamp, everything)]
    late = [e.number for e in log.between(stamp, time.time_ns() + 1, everything)]
    assert sorted(early + late) == [1, 2, 3, 4]


def test_batches_keep_containers_apart_and_order() -> None:
    """A batch is of one container, and its entry id is that of its last entry."""
    found = list(batches(filled().after(0)))
    assert [(b.task_id, len(b.items), b.entry_id) for b in found] == [("ta-1", 3, "3-0"), ("ta-2", 1, "4-0")]
