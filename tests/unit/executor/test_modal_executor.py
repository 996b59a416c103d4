"""The test plan's unit tests: the executor's logic with modal.Function, modal.Dict and modal.Volume replaced.

Nothing else is: the client, the events Queue, the function calls that ``spawn`` returns and the engine's thread are
real, on a local control plane whose one container is busy for ever, so that no worker interferes.
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any
from unittest import mock
from unittest.mock import AsyncMock, MagicMock

import modal
import pytest
from airflow.executors.workloads import ExecuteTask
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.utils.state import TaskInstanceState
from modal import exception

from modalflow.airflow_compat import scheduler
from modalflow.emulator.local import LocalModal
from modalflow.executor.modal_executor import ModalExecutor
from modalflow.executor.reporting.dropped_events import TIMES
from modalflow.protocol.messages import Entry, Kind, State, Submission
from tests.airflows import AIRFLOW
from tests.support import wait_until

KEY = TaskInstanceKey("dag", "task", "run", 1, -1)


class LocalDict:
    """modal.Dict, simulated by a Python dict that the test can look into."""

    def __init__(self) -> None:
        self.data: dict[str, str] = {}
        self.reads = 0
        self.get = SimpleNamespace(aio=self._get)
        self.put = SimpleNamespace(aio=self._put)
        self.pop = SimpleNamespace(aio=self._pop)

    async def _get(self, key: str, default: Any = None) -> Any:
        self.reads += 1
        return self.data.get(key, default)

    async def _put(self, key: str, value: str, *, skip_if_exists: bool = False) -> bool:
        if skip_if_exists and key in self.data:
            return False
        self.data[key] = value
        return True

    async def _pop(self, key: str, default: Any = None) -> Any:
        return self.data.pop(key, default)


class FunctionMock:
    """modal.Function, whose spawn the test inspects."""

    def __init__(self, busy: Any) -> None:
        self.hydrate = SimpleNamespace(aio=AsyncMock())
        self.spawn = SimpleNamespace(aio=AsyncMock(side_effect=self._spawned))
        self.with_options = MagicMock(return_value=self)
        self.call_ids: list[str] = []
        self._busy = busy

    async def _spawned(self, wire: dict[str, Any]) -> Any:
        call = await self._busy.spawn.aio()
        self.call_ids.append(call.object_id)
        return call

    def spawn_busy(self) -> Any:
        """A function call that is pending."""
        return self._busy.spawn()

    @property
    def submissions(self) -> list[Submission]:
        return [Submission.from_wire(call.args[0]) for call in self.spawn.aio.call_args_list]


@dataclass
class Volume:
    """modal.Volume: no deployment record, and a memory of what was uploaded."""

    files: dict[str, bytes] = field(default_factory=dict)

    def read_file(self, path: str) -> Iterator[bytes]:
        raise exception.NotFoundError(path)

    @contextlib.contextmanager
    def batch_upload(self, force: bool = False) -> Iterator[Any]:
        yield SimpleNamespace(put_file=self._put_file)

    def _put_file(self, content: io.BytesIO, path: str) -> None:
        self.files[path] = content.read()


@dataclass
class Stage:
    """A started executor between its three mocks."""

    executor: ModalExecutor
    function: FunctionMock
    ledger: LocalDict
    volume: Volume

    def until(self, condition: Callable[[], Any]) -> None:
        """Run the executor's heartbeat until a condition holds, as a scheduler would."""
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, self.executor._engine and self.executor._engine.describe()
            self.executor.heartbeat()
            time.sleep(0.01)  # a scheduler's idle pause

    def submitted(self) -> Submission:
        self.until(lambda: self.function.submissions)
        return self.function.submissions[-1]

    @property
    def key(self) -> Any:
        """What Airflow's own workload of KEY goes by: KEY, but in the newest versions."""
        return scheduler.workload_key(self.executor, workload())

    def event(self, key: Any = KEY) -> tuple[Any, Any]:
        """Wait for the terminal event of a key and return (state, info)."""
        self.until(lambda: key not in self.executor.running)
        return self.executor.get_event_buffer()[key]

    def report(self, submission: Submission, state: State, **values: Any) -> None:
        """Write what a worker would write to the ledger."""
        entry = Entry(submission.work_id, state, "fc-1", "ta-1", "owner", started_at=time.time())
        self.ledger.data[submission.work_id] = replace(entry, **values).to_json()


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(max_containers=1) as running, pytest.MonkeyPatch.context() as environment:
        for name, value in running.env.items():
            environment.setenv(name, value)
        yield running


@pytest.fixture(scope="module")
def busy(local: LocalModal) -> Any:
    """A deployed Function that never returns."""
    client = modal.Client.from_credentials(local.env["MODAL_TOKEN_ID"], local.env["MODAL_TOKEN_SECRET"])
    app = modal.App("busy")

    @app.function(serialized=True, name="never")
    def never() -> None:
        import threading

        threading.Event().wait()

    app.deploy(client=client)
    return modal.Function.from_name("busy", "never", client=client)


@pytest.fixture
def stage(
    local: LocalModal, busy: Any, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[Stage]:
    settings = {"sweep_interval": "0.1"} | getattr(request, "param", {})
    for name, value in settings.items():
        monkeypatch.setenv(f"AIRFLOW__MODAL_EXECUTOR__{name.upper()}", value)
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTION_API_SERVER_URL", "http://127.0.0.1:8080/execution/")
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__EXECUTION_API", "direct")
    monkeypatch.setenv(
        "AIRFLOW_CONN_MODAL_DEFAULT",
        f"modal://{local.env['MODAL_TOKEN_ID']}:{local.env['MODAL_TOKEN_SECRET']}@",
    )
    # Every Dict is the one that the tests look into.
    monkeypatch.setenv("AIRFLOW__MODAL_EXECUTOR__STATUS_INTERVAL", "0")
    function, ledger, volume = FunctionMock(busy), LocalDict(), Volume()
    monkeypatch.setattr(modal.Function, "from_name", MagicMock(return_value=function))
    monkeypatch.setattr(modal.Dict, "from_name", MagicMock(return_value=ledger))
    monkeypatch.setattr(modal.Volume, "from_name", MagicMock(return_value=volume))
    executor = ModalExecutor(parallelism=4)
    executor.start()
    try:
        yield Stage(executor, function, ledger, volume)
    finally:
        executor.terminate()


def workload(**changes: Any) -> ExecuteTask:
    """A real workload of Airflow's for KEY."""
    ti = {
        "id": "01930000-0000-7000-8000-000000000001",
        "dag_version_id": "01930000-0000-7000-8000-000000000002",
        "task_id": KEY.task_id,
        "dag_id": KEY.dag_id,
        "run_id": KEY.run_id,
        "try_number": KEY.try_number,
        "map_index": KEY.map_index,
        "pool_slots": 1,
        "queue": "default",
        "priority_weight": 1,
        "external_executor_id": "work-1",
    }
    return ExecuteTask.model_validate(
        {
            "ti": ti | changes,
            "dag_rel_path": "dag.py",
            "bundle_info": {"name": "dags"},
            "log_path": "dag_id=dag/attempt=1.log",
            "token": "the-token",
        }
    )


def stored_by(session: MagicMock) -> Any:
    """The external executor id that a database session was told to store."""
    return session.execute.call_args.args[0].compile().params["external_executor_id"]


class TestExecuteAsync:
    """Case 1 of the plan."""

    def test_command_is_serialized(self, stage: Stage) -> None:
        """What spawn gets is plain data from which a worker reads back the command as it was given."""
        stage.executor.execute_async(KEY, ["echo", "hello world"])
        submission = stage.submitted()
        assert submission.kind is Kind.COMMAND
        assert submission.command == ("echo", "hello world")
        wire = stage.function.spawn.aio.call_args.args[0]
        assert {type(value) for value in wire.values()} <= {str, int, float, bool, list, dict, type(None)}

    def test_string_command_is_serialized_for_the_shell(self, stage: Stage) -> None:
        """A text stays one text: the shell in the container splits it."""
        stage.executor.execute_async(KEY, "echo $HOME | wc -c")
        assert stage.submitted().command == "echo $HOME | wc -c"

    def test_workload_is_serialized(self, stage: Stage) -> None:
        """A workload travels as Airflow serialises it, under the id that Airflow pre-assigned, without its token in a
        repr."""
        stage.executor.queue_workload(workload(), session := MagicMock())
        submission = stage.submitted()
        assert submission.work_id == ("work-1" if AIRFLOW >= (3, 2) else stored_by(session))
        assert ExecuteTask.model_validate_json(submission.workload or "").ti.key == KEY
        assert "the-token" not in repr(submission)

    def test_spawn_is_called_exactly_once(self, stage: Stage) -> None:
        """However many heartbeats and sweeps pass, one submission is one spawn."""
        stage.executor.execute_async(KEY, ["true"])
        submission = stage.submitted()
        stage.until(lambda: stage.ledger.reads > 3)
        stage.report(submission, State.SUCCESS, return_code=0)
        stage.event()
        assert stage.function.spawn.aio.await_count == 1

    def test_workload_is_in_the_running_set(self, stage: Stage) -> None:
        """From submission to outcome the key is in ``running``, and no longer queued."""
        stage.executor.queue_workload(workload(), MagicMock())
        assert any(stage.key in queued for queued in scheduler.queued_workloads(stage.executor))
        stage.executor.heartbeat()
        assert stage.key in stage.executor.running
        assert not any(stage.key in queued for queued in scheduler.queued_workloads(stage.executor))


class TestSyncHappyPath:
    """Case 2 of the plan."""

    def test_success_reaches_airflow_and_the_entry_leaves_the_dict(self, stage: Stage) -> None:
        """A SUCCESS entry becomes the executor's success, and is then removed."""
        stage.executor.execute_async(KEY, ["true"])
        submission = stage.submitted()
        stage.report(submission, State.SUCCESS, return_code=0)
        state, info = stage.event()
        assert state is TaskInstanceState.SUCCESS
        assert info == f"{stage.function.call_ids[0]}/{submission.work_id}"
        stage.until(lambda: not stage.ledger.data)

    def test_function_call_is_told_of_work_that_is_over_at_once(self, stage: Stage) -> None:
        """RUNNING, with the id that Airflow is to store, is not hidden by a SUCCESS within the same heartbeat."""
        stage.executor.execute_async(KEY, ["true"])
        wait_until(lambda: stage.function.submissions, 10.0)
        stage.report(stage.function.submissions[0], State.SUCCESS, return_code=0)
        engine = stage.executor._engine
        assert engine is not None
        wait_until(lambda: "2 updates not fetched" in engine.describe(), 10.0)
        told: list[Any] = []
        for _ in range(3):
            stage.executor.heartbeat()
            told += stage.executor.get_event_buffer().values()
        external_id = f"{stage.function.call_ids[0]}/{stage.function.submissions[0].work_id}"
        assert told == [(TaskInstanceState.RUNNING, external_id), (TaskInstanceState.SUCCESS, external_id)]

    def test_an_id_that_airflow_has_dropped_is_reported_again(self, stage: Stage) -> None:
        """A scheduler leaves an event in the buffer whose row is locked; the end waits until the id is stored."""
        stage.executor.job_id = 1
        stage.executor.queue_workload(workload(), MagicMock())
        stage.report(stage.submitted(), State.SUCCESS, return_code=0)
        stage.until(lambda: stage.key in stage.executor.event_buffer)
        dropped = stage.executor.get_event_buffer()
        stage.executor.heartbeat()
        again = stage.executor.get_event_buffer()
        assert again == dropped and again.pop(stage.key)[0] is TaskInstanceState.RUNNING
        stage.until(lambda: stage.key in stage.executor.event_buffer)
        assert stage.executor.get_event_buffer()[stage.key][0] is TaskInstanceState.SUCCESS

    def test_an_id_that_airflow_never_stores_holds_up_no_end(self, stage: Stage) -> None:
        """Its row may be gone: after a few times the end is reported."""
        stage.executor.job_id = 1
        stage.executor.queue_workload(workload(), MagicMock())
        stage.report(stage.submitted(), State.SUCCESS, return_code=0)
        states: list[Any] = []

        def ended() -> bool:
            states.extend(state for state, _ in stage.executor.get_event_buffer().values())
            return TaskInstanceState.SUCCESS in states

        stage.until(ended)
        assert states == [TaskInstanceState.RUNNING] * (1 + TIMES) + [TaskInstanceState.SUCCESS]

    def test_an_id_of_an_earlier_submission_is_not_reported_again(self, stage: Stage) -> None:
        """A rescheduled task is back under its key: the id that Airflow has stored meanwhile stays."""
        stage.executor.job_id = 1
        stage.executor.queue_workload(workload(), MagicMock())
        stage.submitted()
        stage.until(lambda: stage.key in stage.executor.event_buffer)
        stage.executor.get_event_buffer()
        stage.executor._origins[stage.key] = "the-next-one"
        stage.executor.heartbeat()
        assert stage.key not in stage.executor.get_event_buffer()

    def test_deferred_task_ends_without_an_event(self, stage: Stage) -> None:
        """A deferred task will come back under the same key, so its first half ends silently."""
        stage.executor.queue_workload(workload(), MagicMock())
        stage.report(stage.submitted(), State.SUCCESS, return_code=0, final_state="deferred")
        stage.until(lambda: stage.key not in stage.executor.running)
        states = {state for state, _ in stage.executor.get_event_buffer().values()}
        assert states <= {TaskInstanceState.RUNNING}

    def test_entry_stays_until_the_scheduler_has_read_the_event(self, stage: Stage) -> None:
        """A scheduler that dies with an event unread leaves the outcome in the ledger, for the next one to deliver."""
        stage.executor.execute_async(KEY, ["false"])
        submission = stage.submitted()
        stage.report(submission, State.FAILED, return_code=1, reason="The command ended with exit code 1.")
        stage.event()
        assert stage.executor._engine is not None
        stage.executor._engine.stop()  # whatever the engine was told to do has been done then
        assert submission.work_id in stage.ledger.data


class TestSyncFailurePath:
    """Case 3 of the plan."""

    def test_failure_reaches_airflow_with_its_reason(self, stage: Stage) -> None:
        """A FAILED entry with an exit code becomes the executor's failure, and its reason the event's info."""
        stage.executor.execute_async(KEY, ["false"])
        submission = stage.submitted()
        stage.report(submission, State.FAILED, return_code=3, reason="The command ended with exit code 3.")
        assert stage.event() == (TaskInstanceState.FAILED, "The command ended with exit code 3.")
        # On a busy machine, reports of its wait come first.
        assert stage.executor._task_event_logs[-1].extra == "The command ended with exit code 3."
        stage.until(lambda: not stage.ledger.data)

    def test_refused_spawn_fails_the_workload(self, stage: Stage) -> None:
        """What Modal refuses for good is not tried for ever."""
        stage.function.spawn.aio.side_effect = exception.InvalidError("no such GPU")
        stage.executor.execute_async(KEY, ["true"])
        state, info = stage.event()
        assert state is TaskInstanceState.FAILED
        assert "no such GPU" in info

    def test_spawn_is_repeated_while_modal_is_exhausted(self, stage: Stage) -> None:
        """A rate limit costs time, not the task."""
        stage.function.spawn.aio.side_effect = [exception.ResourceExhaustedError("slow down"), mock.DEFAULT]
        stage.function.spawn.aio.return_value = stage.function.spawn_busy()
        stage.executor.execute_async(KEY, ["true"])
        stage.until(lambda: stage.function.spawn.aio.await_count == 2)
        first, second = stage.function.submissions
        assert first.work_id == second.work_id

    def test_unknown_key_of_executor_config_fails_that_task_alone(self, stage: Stage) -> None:
        """The mistake is named in the event, the task's events and its log; the other workload runs."""
        other = workload(id="01930000-0000-7000-8000-000000000009", task_id="other", external_executor_id="work-2")
        stage.executor.queue_workload(workload(executor_config={"modal": {"gpus": "H100"}}), MagicMock())
        stage.executor.queue_workload(other, session := MagicMock())
        stage.executor.heartbeat()
        state, info = stage.executor.get_event_buffer()[stage.key]
        assert state is TaskInstanceState.FAILED
        assert "'gpus'" in info
        assert "did you mean 'gpu'" in info
        assert stage.submitted().work_id == ("work-2" if AIRFLOW >= (3, 2) else stored_by(session))
        stage.until(lambda: any(path.startswith("/dag_id=dag/attempt=1.log/") for path in stage.volume.files))
        (content,) = [text for path, text in stage.volume.files.items() if path.startswith("/dag_id=dag/")]
        assert b"gpus" in content


class TestSyncZombieTimeout:
    """Case 4 of the plan: RUNNING for longer than the timeout."""

    @pytest.mark.parametrize("stage", [{"task_timeout": "60", "lost_command_policy": "fail"}], indirect=True)
    def test_zombie_is_failed(self, stage: Stage) -> None:
        """With the policy `fail` the workload fails, and the reason names the setting."""
        stage.executor.execute_async(KEY, ["sleep", "9999"])
        stage.report(stage.submitted(), State.RUNNING, started_at=time.time() - 61)
        state, info = stage.event()
        assert state is TaskInstanceState.FAILED
        assert "task_timeout = 60 s" in info
        assert stage.function.spawn.aio.await_count == 1

    @pytest.mark.parametrize("stage", [{"task_timeout": "60", "lost_command_policy": "retry"}], indirect=True)
    def test_zombie_is_retried(self, stage: Stage) -> None:
        """With the policy `retry` a raw command is submitted again under a new work id, and that outcome counts."""
        stage.executor.execute_async(KEY, ["sleep", "9999"])
        first = stage.submitted()
        stage.report(first, State.RUNNING, started_at=time.time() - 61)
        stage.until(lambda: len(stage.function.submissions) == 2)
        second = stage.function.submissions[1]
        assert second.work_id != first.work_id
        assert KEY in stage.executor.running
        stage.report(second, State.SUCCESS, return_code=0)
        state, info = stage.event()
        assert state is TaskInstanceState.SUCCESS
        assert second.work_id in info

    @pytest.mark.parametrize("stage", [{"task_timeout": "60", "lost_command_policy": "retry"}], indirect=True)
    def test_zombie_of_airflow_fails_whatever_the_policy(self, stage: Stage) -> None:
        """Whether a task may run again is for its own retries to say, so the policy is for raw commands only."""
        stage.executor.queue_workload(workload(), MagicMock())
        stage.report(stage.submitted(), State.RUNNING, started_at=time.time() - 61)
        state, _ = stage.event(stage.key)
        assert state is TaskInstanceState.FAILED
        assert stage.function.spawn.aio.await_count == 1
