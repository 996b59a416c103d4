"""What holds for every test: nothing it started outlives it."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from collections.abc import Container, Iterator, Sequence
from typing import Any

import pytest

from modalflow.support import linux
from tests.command_line import CommandLine
from tests.gvisor.different import expect_failures
from tests.live import where
from tests.scopes import Scopes
from tests.support import command_of

LEAK_GRACE_SECONDS = 5.0
REMOVAL_SECONDS = 60.0

#: Threads that the SDK and its libraries keep for the life of the process, whoever uses them first.
KEPT_THREADS = (
    "synchronicity",
    "asyncio_",
    # Bounded by the SDK's own retries of a connection.
    "modalflow-blocking",
    "ThreadPoolExecutor",
    "grpc",
    "pytest_timeout",
    "tqdm",
    "pydevd",
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--integration", action="store_true", help="also run what may run against the live service")


def pytest_report_header(config: pytest.Config) -> str | None:
    return f"integration tests talk to: {where()}" if config.getoption("--integration") else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--integration"):
        for item in items:
            if item.get_closest_marker("integration"):
                item.add_marker(pytest.mark.skip(reason="needs --integration"))
    expect_failures(items)


def pytest_collection() -> None:
    # Until its end: nothing of what is imported and collected can be freed.
    gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scopes:
    return Scopes(config, log)


def pytest_configure(config: pytest.Config) -> None:
    # Images of CI systems set it, and each of a thousand processes would compile modalflow again.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.dont_write_bytecode = False
    # Whoever starts the tests in the background may ignore these for them, and what they start would inherit that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    # A process whose parent ended comes to this one then, and the check below sees it.
    linux.adopt_orphans()


@pytest.fixture(scope="session")
def modalflow_cli(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommandLine]:
    """``modalflow …`` beside an Airflow that is not configured: no test sees the developer's own."""
    home = tmp_path_factory.mktemp("airflow")
    with CommandLine({"AIRFLOW_HOME": str(home), "MODAL_CONFIG_PATH": os.devnull}, "modalflow") as command_line:
        yield command_line


def _grace(left: Sequence[str]) -> float:
    """Return the seconds to wait for what is left: a control plane leaves the removal of its folder to ``rm``."""
    return REMOVAL_SECONDS if all(": rm -rf -- " in each for each in left) else LEAK_GRACE_SECONDS


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    """Fail a test that leaves a process or a thread behind, and end the process.

    What fixtures of a wider scope keep running was there before the test, and what runs below that is its business.
    """
    processes, threads = set(linux.family(os.getpid())), set(threading.enumerate())
    yield
    ended = time.monotonic()
    while (left := _left(processes, threads)) and time.monotonic() < ended + _grace(left):
        time.sleep(0.02)
    for pid in _new(processes):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert not left, f"left behind: {left}"


def _new(known: Container[int]) -> list[int]:
    """Return what runs below this process and below none of those: what runs there is the business of a fixture of a
    wider scope, as containers of its control plane are."""
    found = [pid for pid in linux.children(os.getpid()) if pid not in known]
    for pid in found:
        found += [child for child in linux.children(pid) if child not in known]
    return found


def _left(processes: Container[int], threads: set[threading.Thread]) -> list[str]:
    left = [f"process {pid}: {command}" for pid in _new(processes) if (command := command_of(pid)) is not None]
    left += [
        f"thread {thread.name}"
        for thread in threading.enumerate()
        # synchronicity's own, whose number depends on what ran before.
        if thread not in threads and not thread.name.startswith(KEPT_THREADS) and "(thread_inner)" not in thread.name
    ]
    return left
