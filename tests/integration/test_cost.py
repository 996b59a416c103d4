"""What work occupied, as real containers of the deployed worker record it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import modal
import pytest

from modalflow import __version__
from modalflow.config.settings import Settings
from modalflow.config.source import Variables
from modalflow.cost.samples import Samples
from modalflow.cost.usage import LOST, Record
from modalflow.logs.recorded_calls import RecordedCalls
from modalflow.names import LOGS_MOUNT, USAGE_FOLDER, TaskTry
from modalflow.operations.costs import current_rates, read_usage
from modalflow.operations.site import Site
from modalflow.protocol.messages import State
from modalflow.worker.usage.usage_recorder import PUBLISHED_FROM
from tests.command_line import CommandLine
from tests.integration.world import Work, World, deployed_worker
from tests.support import in_gvisor, wait_until

FOLDER = f"{LOGS_MOUNT}/{USAGE_FOLDER}"

EPOCH = datetime.fromtimestamp(0, UTC)

#: A program that uses memory and time, in a process that its own parent waits for.
_GREEDY = """
import subprocess, sys
subprocess.run([sys.executable, "-c", '''
import time
held = b"x" * (300 << 20)
while time.process_time() < 3.5: pass
'''], check=True)
"""

_BUSY = """
import time
while time.process_time() < 0.5: pass
print("ready", flush=True)
time.sleep(603)
"""


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, "costed", "--max-containers", "1", "--concurrency", "2") as world:
        yield world


@pytest.fixture(scope="module")
def site(world: World) -> Site:
    return Site(Settings.read(Variables({"AIRFLOW__MODAL_EXECUTOR__APP_NAME": "costed"})), world.logs.control_plane)


def volume_of(site: Site) -> Any:
    return modal.Volume.from_name(site.names.logs, **site.scope)


def records(site: Site) -> list[Record]:
    return read_usage(site, EPOCH).records


def record_of(site: Site, work: Work) -> Record:
    """The record of work that has ended: it was published before its end was told."""
    work.ended()
    [record] = [each for each in records(site) if each.work_id == work.work_id]
    return record


def test_the_app_has_tags_for_modals_billing_report(world: World, site: Site) -> None:
    """Modal's own report of costs can be grouped by the worker app and its version."""
    app = modal.App.lookup("costed", client=site.control_plane.client)
    assert app.get_tags() == {"modalflow_app": "costed", "modalflow_version": __version__.replace("+", "-")}


def test_a_command_is_recorded_with_what_it_and_its_children_used(world: World, site: Site) -> None:
    """Times, processor seconds and memory are those that the kernel counted, and the log's last line tells them."""
    began, task = time.time(), TaskTry("d", "greedy", "r")
    work = world.command(("python3", "-c", _GREEDY), submitted_at=began, spawned_at=began, task=task)
    record = record_of(site, work)
    assert record.outcome == "success" and record.container_id.startswith("ta-")
    assert record.running > 3.5 and record.cpu_seconds > 3.5
    assert 300 < record.peak_mib < 500 and 0 < record.worker_mib < 500
    # The container started for it.
    assert record.starting > 0 and record.occupied >= record.running
    footer = json.loads(work.log().splitlines()[-1])
    assert footer["level"] == "info" and footer["event"].startswith("Occupied ")
    # A page about it shows its moments in their order, and its use over time.
    [call] = RecordedCalls().of_instance(volume_of(site), "d", "greedy", "r", -1, began, time.time())
    timeline, samples = call.timeline, call.samples
    moments = [timeline.spawned_at, timeline.container_started_at, record.taken_at, timeline.claimed_at]
    # Its end is a sum of durations, by another clock; the container's own start was before it.
    assert moments == sorted(moments) and timeline.claimed_at < record.ended_at < time.time() + 1
    assert timeline.is_cold_start and timeline.number == 1 and 0 < record.cold <= record.starting
    assert timeline.image.startswith("im-") and timeline.cloud == "local" and not timeline.reason
    # In gVisor, on a busy machine, a reading of the use seems to take long, so a call of seconds may have no samples,
    # or so few that they miss the peak.
    assert samples is not None or in_gvisor()
    if samples is not None:
        assert record.taken_at < samples.began_at < record.ended_at
        assert max(samples.cpu) > 0.1 and 0 < max(samples.mib) < 500
        assert max(samples.mib) > 300 or (in_gvisor() and samples.interval > 2)
        assert sum(samples.cpu) * samples.interval < record.cpu_seconds


def test_the_samples_of_a_running_call_come_with_its_log(world: World, site: Site) -> None:
    """Without a commit of their own, and only while it runs: then they are beside its record."""
    rounds = 40 if in_gvisor() else 100
    busy = f"for i in $(seq {rounds}); do echo $i; head -c 20000000 /dev/urandom | md5sum; sleep 0.2; done"
    work = world.command(("bash", "-c", busy))
    volume, calls = volume_of(site), RecordedCalls()
    entry = work.running()
    container = entry.container_id, entry.container_started_at

    def published() -> list[Samples]:
        found = calls.running_samples(volume, [container]).get((entry.function_call_id, entry.container_id))
        return [found] if found is not None else []

    (samples,) = wait_until(published, 60, "samples of running work")
    assert samples.seconds >= PUBLISHED_FROM and max(samples.cpu) > 0.01 and max(samples.mib) > 1
    record = record_of(site, work)
    assert record.running > samples.seconds
    assert not calls.running_samples(volume, [container])


def test_the_seconds_of_a_container_are_divided(world: World, site: Site) -> None:
    """Two that run side by side share them; the next one has what was idle before it. All of it adds up."""
    earlier = records(site)
    meet = "touch /tmp/{here}; for i in $(seq 400); do [ -e /tmp/{there} ] && exec sleep 1; sleep 0.05; done; exit 1"
    pair = [world.command(meet.format(here="a", there="b")), world.command(meet.format(here="b", there="a"))]
    shared = [record_of(site, work) for work in pair]
    alone = record_of(site, world.command(("sleep", "0.5")))
    assert all(each.occupied - each.idle < 0.8 * (each.starting + each.running) for each in shared)
    assert alone.occupied == pytest.approx(alone.idle + alone.starting + alone.running, abs=0.05)
    here = [each for each in [*earlier, *shared, alone] if each.container_id == alone.container_id]
    there_since = min(each.taken_at for each in here)
    whole = alone.ended_at - there_since
    cold = next(each for each in here if each.taken_at == there_since)
    start_of_container = cold.starting + cold.idle
    assert whole - 0.5 <= sum(each.occupied for each in here) <= whole + start_of_container + 0.5


def test_a_task_is_recorded_as_what_it_is(world: World, site: Site) -> None:
    """A workload of Airflow's is known by DAG, run, task and try; what the start of Airflow used is counted."""
    record = record_of(site, world.task("hello"))
    ti = json.loads(world.task("hello").wire["workload"])["ti"]
    assert (record.dag_id, record.task_id) == (ti["dag_id"], ti["task_id"])
    assert (record.run_id, record.try_number, record.map_index) == (ti["run_id"], ti["try_number"], -1)
    assert record.outcome == "success" and record.cpu_seconds > 0.5 and record.peak_mib > 50
    calls = RecordedCalls().of_run(volume_of(site), record.dag_id, record.run_id, record.taken_at, time.time())
    [call] = [each for each in calls if each.record == record]
    timeline = call.timeline
    ends = [timeline.task_ended_at, timeline.reported_at, record.ended_at + 0.001]
    moments = [timeline.claimed_at, timeline.started_at, timeline.first_line_at, *ends]
    assert moments[0] > 0 and moments == sorted(moments)
    assert not timeline.is_cold_start and timeline.number > 1


def test_cancelled_work_was_there_too(world: World, site: Site) -> None:
    """It is recorded with what it used until then, and its log ends with the reason all the same."""
    work = world.command(("python3", "-c", _BUSY))
    work.log_with("ready")
    work.calls[0].cancel()
    record = record_of(site, work)
    assert record.outcome == "failed" and record.cpu_seconds > 0.3
    *_, footer, reason = [json.loads(line)["event"] for line in work.log().splitlines() if line.startswith("{")]
    assert footer.startswith("Occupied ") and "ancelled" in reason


def test_a_repeated_spawn_is_not_recorded(world: World, site: Site) -> None:
    """Work that ran once is recorded once."""
    work = world.command(("true",))
    work.ended()
    work.spawn()
    assert work.result()["state"] == "success"
    record_of(site, work)


def test_a_killed_container_is_recorded_by_the_next_one(world: World, site: Site) -> None:
    """The seconds until the loss was noticed, in the name of the container that is gone."""
    work = world.command("echo it ran; sleep 602")
    work.log_with("it ran")
    lost = work.running()
    world.faults.now("kill", container=lost.container_id)
    assert work.ended().state is State.FAILED
    record = record_of(site, work)
    assert (record.outcome, record.container_id) == (LOST, lost.container_id)
    assert record.running > 0
    events = [json.loads(line)["event"] for line in work.log().splitlines() if line.startswith("{")]
    assert events[-2].startswith("Occupied ") and lost.container_id in events[-1]


def test_a_volume_that_cannot_be_written_costs_the_record_alone(world: World, site: Site) -> None:
    """Where records cannot be written, work ends as it would, and the next record is written."""
    before = len(records(site))
    blocked = world.command(f"mv {FOLDER} /opt/modalflow/logs/aside && touch {FOLDER}")
    assert blocked.ended().state is State.SUCCESS, blocked.log()
    mended = world.command(f"rm {FOLDER} && mv /opt/modalflow/logs/aside {FOLDER}")
    assert mended.ended().state is State.SUCCESS
    wait_until(lambda: len(records(site)) > before)


def test_a_control_plane_that_knows_no_rates_is_said(site: Site) -> None:
    """The dated table stands in for Modal's answer, with the reason."""
    rates, why = current_rates(site)
    assert not rates.live and "2026-10" in rates.source and "WorkspaceBillingRates" in why
