"""The engine against a control plane, with workers played: how it bears refusals, bursts, and its own end."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from airflow.utils.state import TaskInstanceState
from modal import exception

from modalflow import control_plane
from modalflow.airflow_compat import scheduler
from modalflow.emulator.local import LocalModal
from modalflow.executor import engine as engine_module
from modalflow.executor import modal_executor
from modalflow.executor.modal_api.modal_api import ModalApi
from modalflow.executor.modal_api.rate_limits import retry_after
from modalflow.executor.submission.resources import Resources
from modalflow.names import Names
from modalflow.protocol.messages import Entry, State
from tests.driving import Driver, new_key
from tests.support import wait_until
from tests.wired import Observer

NAMES = Names("engine-tests")


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    """A control plane on which what is submitted waits for a container that is never free."""
    with LocalModal() as running, pytest.MonkeyPatch.context() as environment:
        variables = running.env | {
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        app = modal.App(NAMES.app)

        @app.function(serialized=True, name=NAMES.function("default"), max_containers=1)
        def run(submission: dict[str, Any]) -> None:
            import threading

            threading.Event().wait()

        client: Any = modal.Client.from_credentials(running.address.token_id, running.address.token_secret)
        app.deploy(client=client)
        modal.Function.from_name(NAMES.app, NAMES.function("default"), client=client).spawn({})
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()


def events(driver: Driver) -> Any:
    return modal.Queue.from_name(NAMES.events, create_if_missing=True, **driver.scope)


def ended(driver: Driver, work_id: str) -> str:
    """What a worker says of work that has ended."""
    assert driver.executor._engine is not None
    partition = driver.executor._engine.wiring.partition
    entry = Entry(
        work_id,
        State.SUCCESS,
        "fc-played",
        "ta-played",
        "owner",
        partition=partition,
        return_code=0,
        finished_at=time.time(),
    )
    return entry.to_json()


def report(driver: Driver, *work_ids: str) -> None:
    assert driver.executor._engine is not None
    partition = driver.executor._engine.wiring.partition
    events(driver).put_many([ended(driver, work_id) for work_id in work_ids], partition=partition)


def test_rate_limit_is_raised_at_once(driver: Driver, local: LocalModal) -> None:
    """Modal's word to come back in half a minute reaches the executor, instead of being slept out within the SDK."""
    fault = local.faults.add("FunctionMap:resource-exhausted,retry-after=30s")
    api = ModalApi(driver.executor._control_plane(), NAMES, Observer())
    began = time.monotonic()
    try:
        with pytest.raises(exception.ResourceExhaustedError) as refused:
            asyncio.run(api.spawn("default", Resources(), {}))
    finally:
        local.faults.clear([fault.id])
    assert retry_after(refused.value) == 30.0
    assert time.monotonic() - began < 15.0


def test_engine_that_ended_begins_anew(
    driver: Driver, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Its thread ends with what no loop survives: that is logged, the next heartbeat starts another one, and what was
    in flight, or was submitted meanwhile, is neither lost nor submitted twice."""
    before = driver.submit("before", ["true"])
    before_id = driver.stored_id(before).partition("/")[2]
    engine = driver.executor._engine
    assert engine is not None
    first_thread = engine._thread
    monkeypatch.setattr(engine_module, "RESTART_PAUSE", 0.1)

    async def dying() -> None:
        raise SystemExit("as an interpreter that shuts down does")

    engine._inbox.post(lambda: engine.wiring.tasks.spawn(dying()))
    wait_until(lambda: not first_thread.is_alive(), what="the end of the engine's thread")
    assert "The engine's thread ends" in caplog.text
    meanwhile = driver.submit("meanwhile", ["true"])
    meanwhile_id = driver.stored_id(meanwhile).partition("/")[2]
    assert "started again with its 1 calls in flight" in caplog.text
    report(driver, before_id, meanwhile_id)
    for key in (before, meanwhile):
        assert driver.outcome(key)[0] is TaskInstanceState.SUCCESS
        assert len({str(info) for _, info in driver.events[key]}) == 1, "one function call"


def test_burst_of_updates_is_reported_in_several_heartbeats(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """However much has ended at once, one heartbeat reports only so much to Airflow, and none of it is lost."""
    monkeypatch.setattr(modal_executor, "UPDATES_AT_ONCE", 4)
    keys = [driver.submit(f"burst-{n}", ["true"]) for n in range(10)]
    engine = driver.executor._engine
    assert engine is not None
    wait_until(lambda: "10 updates not fetched" in engine.describe(), what="ten function calls")
    told: list[int] = []
    while len(told) < 3:
        driver.executor.heartbeat()
        events = driver.executor.get_event_buffer()
        told.append(len(events))
        events.clear()
    assert told == [4, 4, 2]
    assert set(keys) <= driver.executor.running


class Watch:
    """Notes what a thread opens or connects to, as Python's audit events tell. Hooks are for ever, so there is one."""

    PREFIXES = ("open", "socket.", "subprocess.", "os.system", "sqlite3.", "shutil.", "tempfile.", "glob.", "urllib.")
    _one: Watch | None = None

    def __init__(self) -> None:
        self.thread: int | None = None
        self.seen: list[str] = []

    @classmethod
    def made(cls) -> Watch:
        if cls._one is None:
            cls._one = cls()
            sys.addaudithook(cls._one._hook)
        return cls._one

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self.thread == threading.get_ident() and event.startswith(self.PREFIXES):
            self.seen.append(f"{event} {arguments!r}")

    @contextlib.contextmanager
    def on_this_thread(self) -> Iterator[None]:
        self.thread, self.seen = threading.get_ident(), []
        try:
            yield
        finally:
            self.thread = None


def test_scheduler_thread_does_no_input_or_output(driver: Driver, local: LocalModal) -> None:
    """From the hand-over to the end, in trouble as well, heartbeats open no file and no connection: all of that is the
    engine's."""

    def life(name: str, watched: bool) -> None:
        watching = watch.on_this_thread() if watched else contextlib.nullcontext()
        executor = driver.executor
        with watching:
            keys = [driver.submit(f"{name}-{n}", ["true"]) for n in range(4)]
            executor.execute_async(new_key(f"{name}-profile"), ["true"], executor_config={"modal": {"profile": "no"}})
            given_up, revoked, ended_here, _ = keys
            ended_id = driver.stored_id(ended_here).partition("/")[2]
            executor.change_state(given_up, TaskInstanceState.FAILED)
            executor.revoke_task(ti=SimpleNamespace(key=revoked))  # type: ignore[arg-type]
        report(driver, ended_id)
        with watch.on_this_thread() if watched else contextlib.nullcontext():
            driver.outcome(ended_here)
            for _ in range(3):
                driver.beat()

    watch = Watch.made()
    life("first", watched=False)  # what is imported at the first use
    fault = local.faults.add("*:unavailable,p=0.3,for=clients")
    try:
        life("second", watched=True)
    finally:
        local.faults.clear([fault.id])
    assert watch.seen == []
    with watch.on_this_thread():
        Path("/dev/null").open().close()
    assert watch.seen, "the watch sees what is opened"


def test_metrics_are_sent_by_the_engine(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """What happens to a workload reaches Airflow's stats, from the engine's thread and not from the scheduler's."""
    sent: dict[str, set[str]] = {}

    def take(stat: str, *args: Any, **kwargs: Any) -> None:
        sent.setdefault(threading.current_thread().name, set()).add(stat)

    stats = scheduler.stats()
    for kind in ("incr", "gauge", "timing"):
        monkeypatch.setattr(stats, kind, take)
    key = driver.submit("counted", ["true"])
    report(driver, driver.stored_id(key).partition("/")[2])
    driver.outcome(key)
    expected = {
        f"modal_executor.{name}"
        for name in (
            "submit_latency",
            "outcome_latency",
            "delivery_latency",
            "in_flight",
            "waiting",
            "taken",
            "success",
            "rpc",
            "rpc.FunctionMap.ok",
            "rpc.QueueGet.ok",
        )
    }
    wait_until(lambda: expected <= sent.get("modalflow-engine", set()), what="all metrics")
    others = set().union(*(names for thread, names in sent.items() if thread != "modalflow-engine"))
    assert {name for name in others if name.startswith("modal_executor")} == set()
    assert "executor.running_tasks" in others, "Airflow's own go on"
