"""A forked child talks to Modal as a new process does, and its parent goes on as if there had been no fork."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import modal
import pytest
from modal._utils.async_utils import synchronizer
from modal._utils.http_utils import ClientSessionRegistry

from modalflow import control_plane
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from modalflow.support import forks
from tests.contract.conftest import Live
from tests.forking import in_child

#: What one small transfer may take where nothing is wrong, on a loaded machine. With something inherited it is minutes.
SOON = 10.0

#: More than goes into the RPC itself, so that the SDK's HTTP session is what transfers it.
CONTENT = b"x" * 5_000_000


@pytest.fixture(scope="module")
def app_name() -> str:
    return f"test-forks-{os.getpid()}"


@pytest.fixture(scope="module")
def logs(client: modal.Client, app_name: str) -> Iterator[LogVolume]:
    """The logs Volume of a worker app, to which this process has uploaded already."""
    logs = LogVolume(control_plane.connect(), Names(app_name))
    logs.add("log", "first.log", CONTENT)
    yield logs
    modal.Volume.objects.delete(Names(app_name).logs, client=client)


def upload(app_name: str, file: str) -> None:
    """What a process of the Airflow host does with a task's log."""
    LogVolume(control_plane.connect(), Names(app_name)).add("log", file, CONTENT)


def size_of(logs: LogVolume, file: str) -> int:
    return sum(map(len, logs.volume.read_file(f"log/{file}")))


def test_a_child_uploads_after_its_parent_did(logs: LogVolume, app_name: str) -> None:
    """As a worker of LocalExecutor does beside ModalExecutor; and so does a child of the child, as a task is."""

    def child() -> None:
        upload(app_name, "child.log")
        in_child(lambda: upload(app_name, "grandchild.log"), SOON)

    in_child(child)
    assert [size_of(logs, name) for name in ("child.log", "grandchild.log")] == [len(CONTENT)] * 2


def test_what_a_child_drops_is_not_taken_from_its_parent(logs: LogVolume, app_name: str) -> None:
    """The parent's connections share an epoll instance with the child's copies: closing those must not reach it."""
    session = id(ClientSessionRegistry._client_session)

    def child() -> None:
        upload(app_name, "dropped.log")
        forks._inherited.clear()
        gc.collect()

    in_child(child)
    assert id(ClientSessionRegistry._client_session) == session
    began = time.monotonic()
    assert size_of(logs, "dropped.log") == len(CONTENT)
    upload(app_name, "parent.log")
    assert time.monotonic() - began < SOON


def test_handles_and_the_default_client_work_in_a_child(logs: LogVolume, client: modal.Client, name: str) -> None:
    """A task's own code uses Modal in a process that was forked from one which had."""
    hydrated = modal.Dict.from_name(name, create_if_missing=True)
    hydrated["by"] = "parent"

    def child() -> list[Any]:
        seen = [hydrated["by"], modal.Dict.from_name(name)["by"], sum(map(len, logs.volume.read_file("log/first.log")))]
        hydrated["by"] = "child"
        return seen

    assert in_child(child) == ["parent", "parent", len(CONTENT)]
    assert hydrated["by"] == "child"
    modal.Dict.objects.delete(name, client=client)


def test_a_fork_in_the_middle_of_calls(logs: LogVolume, app_name: str, name: str) -> None:
    """Whatever other threads hold at that moment: the lock of the default client, a transfer, a new session."""
    ended = threading.Event()

    def keep_busy(number: int) -> None:
        while not ended.is_set():
            upload(app_name, f"busy-{number}.log")
            modal.client._Client._client_from_env = None
            modal.Dict.from_name(name, create_if_missing=True)["a"] = number

    threads = [threading.Thread(target=keep_busy, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    try:
        for number in range(5):
            in_child(lambda number=number: upload(app_name, f"amid-{number}.log"))  # type: ignore[misc]
            in_child(lambda: modal.Dict.from_name(name, create_if_missing=True).put("b", 1))
    finally:
        ended.set()
        for thread in threads:
            thread.join(SOON)
    assert [size_of(logs, f"amid-{number}.log") for number in range(5)] == [len(CONTENT)] * 5
    modal.Dict.objects.delete(name)


def test_a_lock_that_was_held_is_free_in_a_child(client: modal.Client, name: str) -> None:
    """Of the SDK's default client: no thread of the child would ever release it."""
    modal.Client.from_env()

    async def held() -> Any:
        lock = modal.client._Client._client_from_env_lock
        assert lock is not None
        async with lock:
            return in_child(lambda: modal.Dict.from_name(name, create_if_missing=True).put("a", 1))

    synchronizer.create_blocking(held)()
    modal.Dict.objects.delete(name, client=client)


def test_processes_of_multiprocessing(logs: LogVolume, app_name: str) -> None:
    """They end by running exit handlers, while their parent waits for them."""
    process = multiprocessing.get_context("fork").Process(target=upload, args=(app_name, "pool.log"))
    process.start()
    process.join(SOON)
    assert process.exitcode == 0
    assert size_of(logs, "pool.log") == len(CONTENT)


USED_BEFORE = """
import io, modal, os, sys, time
volume = modal.Volume.from_name(sys.argv[1], create_if_missing=True, version=2)
def upload(volume):
    with volume.batch_upload(force=True) as batch:
        batch.put_file(io.BytesIO(b"x" * 5_000_000), "/a")
upload(volume)
{first}
pid = os.fork()
if not pid:
    from modalflow.control_plane import connect
    upload(modal.Volume.from_name(sys.argv[1], **connect().scope()))
    sys.exit(0)  # An end with all finalizers.
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
upload(volume)
sum(map(len, volume.read_file("a")))
modal.Volume.objects.delete(sys.argv[1])
"""


@pytest.mark.parametrize("first", ["import modalflow.control_plane", ""], ids=["in the parent", "in the child"])
def test_the_sdk_was_used_before_modalflow_was_imported(local: Live, name: str, first: str) -> None:
    """In the parent, or not before the child; and an ordinary end of the child leaves the parent alone."""
    program = [sys.executable, "-c", USED_BEFORE.format(first=first), name]
    subprocess.run(program, env={**os.environ, **local.env}, check=True, timeout=60)


def test_what_is_made_anew_is_there(logs: LogVolume) -> None:
    """Each name of the table exists in this SDK, so that a renamed one is noticed before a user's child hangs."""
    known = [row for row, _ in forks._STATE_OF_SDK if row.applies_to(modal.__version__)]
    assert [row.name for row in known if not hasattr(row.owner_if_loaded(), row.attribute)] == []
    assert isinstance(forks._sdk("modal._environments", "ENVIRONMENT_CACHE"), dict)
    assert forks._loop_of_sdk() is not None


IMPORTS = """
import sys
from modalflow import names
from modalflow.logs import log_volume
from modalflow.support import forks
from modalflow.control_plane import connect
forks.import_ahead()
before = set(sys.modules)
volume = log_volume.LogVolume(connect(), names.Names("test-imports"))
volume.add("log", "a", b"x" * 5_000_000)
volume.read("log")
print(sorted(name for name in set(sys.modules) - before if name.startswith(("modal", "aiohttp"))))
"""


def test_nothing_is_left_to_import_at_a_first_transfer(local: Live, client: modal.Client) -> None:
    """A fork in the middle of an import of another thread would leave the child waiting for that module's lock."""
    program = [sys.executable, "-c", IMPORTS]
    done = subprocess.run(program, env={**os.environ, **local.env}, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr
    modal.Volume.objects.delete("test-imports-logs", client=client)


def test_a_dict_of_a_process_is_empty_in_its_child() -> None:
    """What holds connections is looked up anew there, and stays in the parent."""
    held: forks.PerProcess[str, int] = forks.PerProcess()
    held["a"] = 1
    assert in_child(lambda: dict(held)) == {}
    assert held == {"a": 1}
