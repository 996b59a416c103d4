"""What runs in a container and what it prints, hostile or much: how it is in the log."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from modalflow.names import BUNDLES_ROOT
from modalflow.protocol.messages import State
from modalflow.worker.logs.log_files import PART_SIZE
from tests.command_line import CommandLine
from tests.inside import processes_in
from tests.integration.world import Work, World, deployed_worker
from tests.support import wait_until


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, "prints") as world:
        yield world


def lines(work: Work) -> list[dict[str, Any]]:
    return [json.loads(line) for line in work.log().removesuffix("\n").split("\n")]


def printed(work: Work, logger: str = "") -> list[str]:
    """The texts that a stream has in the log, or both have."""
    return [line["event"] for line in lines(work) if stream_of(line) in ({logger} if logger else STREAMS)]


def stream_of(line: dict[str, Any]) -> str:
    """Airflow 3.0 names a task's stream otherwise than later ones."""
    return f"task.{line['chan']}" if "chan" in line else str(line.get("logger"))


STREAMS = {"task.stdout", "task.stderr"}

_TALKS_TO_BOTH = """
import os, random
for number in range(20_000):
    os.write(random.choice((1, 2)), b"%d\\n" % number)
"""


def test_both_streams_of_a_command_are_in_the_order_of_the_writes(world: World) -> None:
    """Twenty thousand lines, as fast as they can be written, to one stream or the other: each is there, in order, and
    known by its stream; and so are a time that never goes back and a level."""
    work = world.command(("python3", "-c", _TALKS_TO_BOTH))
    assert work.ended().state is State.SUCCESS
    assert printed(work) == [str(number) for number in range(20_000)]
    assert len(printed(work, "task.stdout")) > 5_000 and len(printed(work, "task.stderr")) > 5_000
    stamps = [line["timestamp"] for line in lines(work)]
    assert stamps == sorted(stamps)
    levels = {(line["logger"], line["level"]) for line in lines(work) if line["logger"] in STREAMS}
    assert levels == {("task.stdout", "info"), ("task.stderr", "error")}


def test_a_log_begins_with_what_runs_it(world: World) -> None:
    """Function call, container, profile and what was granted are in the first line, as text and as fields."""
    work = world.command("true", resources={"cpu": 0.5, "memory": [64, 512]})
    entry, first = work.ended(), lines(work)[0]
    assert first["event"] == ("Started on Modal, profile default: 0.5 cores, 64 to 512 MiB, on a local control plane")
    assert (first["function_call_id"], first["container_id"]) == (entry.function_call_id, entry.container_id)
    assert (first["profile"], first["cpu"], first["memory"]) == ("default", 0.5, [64, 512])
    # For an executor that adopts it: what a next try needs more than.
    assert (entry.memory_mib, entry.timeout) == (512, 86_400)


def test_any_bytes_of_a_command_can_be_read(world: World) -> None:
    """No UTF-8, NUL, a progress bar, a line of a megabyte, no end of the last line: the log is JSON and has it all."""
    long = "head -c 1000000 /dev/zero | tr '\\0' x; echo"
    odd = r"printf 'a\0b\n\377\n 10%%\r100%%\nto stdout by name\n' > /dev/stdout; echo by name > /dev/stderr"
    work = world.command(f"{odd}; {long}; printf 'the end'")
    assert work.ended().state is State.SUCCESS
    texts = printed(work)
    assert texts[:5] == ["a\0b", "\\xff", "100%", "to stdout by name", "by name"]
    assert [len(text) for text in texts[5:]] == [1_000_000, 7]


def test_a_prompt_is_seen_while_it_waits(world: World) -> None:
    """What has no newline yet is in the log while the command runs."""
    work = world.command("printf 'Are you sure? '; sleep 608")
    log = work.log_with("Are you sure?")
    assert json.loads(log.splitlines()[-1])["unfinished"] is True
    work.calls[0].cancel()
    work.ended()


def test_a_daemon_that_holds_the_streams_holds_up_nothing(world: World) -> None:
    """A command whose child lives on ends at its own end, with its own exit code, and the child ends with it."""
    work = world.command("(while :; do echo more; sleep 0.01; done) & sleep 609 & echo up; exit 4")
    entry = work.ended()
    assert entry.return_code == 4 and "up" in printed(work)
    wait_until(lambda: not processes_in(entry.container_id, "sleep 609"), what="the daemon to end")


def test_the_log_of_a_killed_container_ends_with_the_reason(world: World) -> None:
    """All that was written up to the kill is there, and the line after it says why there is no more."""
    work = world.command("for i in $(seq 300); do echo line $i; done; touch /tmp/written; sleep 610")
    entry = work.running()
    work.log_with('"line 1"')
    wait_until(lambda: processes_in(entry.container_id, "sleep 610"), what="the last line to be written")
    world.faults.now("kill", container=entry.container_id)
    assert work.ended().state is State.FAILED
    *before, last = lines(work)
    assert [line["event"] for line in before if line["logger"] == "task.stdout"] == [
        f"line {n + 1}" for n in range(300)
    ]
    assert last["level"] == "error" and entry.container_id in last["event"]


def test_a_long_log_of_a_task_is_whole_and_in_parts(world: World) -> None:
    """Ten megabytes in no time, with a line of a megabyte and bytes that are no text: every line is there, in order,
    and no file of it is longer than a part."""
    work = world.task("prints_much")
    assert work.ended().final_state == "success"
    texts = printed(work, "task.stdout")
    assert [text.split()[1] for text in texts[:30_000]] == [str(number) for number in range(30_000)]
    assert texts[30_000] == "x" * 1_000_000
    assert [text.replace("\N{REPLACEMENT CHARACTER}", "?") for text in texts[30_001:]] == [
        "half a line, ?(, \0, and its end",
        "no end",
    ]
    sizes = [file.size for file in world.logs.volume.listdir(work.wire["log_path"])]
    assert len(sizes) > 2 and max(sizes) <= PART_SIZE


def test_a_remote_logging_of_the_deployment_gets_the_whole_log(world: World) -> None:
    """Airflow's own handler uploads under Airflow's own path, with the connection it needs; meanwhile, and after, the
    log is on the Volume as always."""
    env = {
        "PYTHONPATH": f"{BUNDLES_ROOT}/tests",
        "AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS": "remote_log.LOGGING_CONFIG",
        "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER": f"{world.api.url}uploads",
    }
    work = world.task("hello", env=env)
    assert work.ended().final_state == "success", work.log()
    [uploaded] = [body for method, path, body in world.api.requests if path.endswith("/uploads") and method == "PUT"]
    assert (uploaded["path"], uploaded["has_connection"]) == ("dag_id=d/run_id=r/task_id=hello/attempt=1.log", True)
    assert work.log().startswith(uploaded["log"])
    assert json.loads(uploaded["log"].splitlines()[0])["event"].startswith("Started on Modal")
    assert "hello from the task" in uploaded["log"]
