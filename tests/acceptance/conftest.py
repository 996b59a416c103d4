"""One Airflow on a local control plane for all tests here; the tests that break it for good come last."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from modalflow.demo.modal_stack import ModalStack
from tests.acceptance.airflow_on_modal import stack_of
from tests.acceptance.dag_sources import PROCESSES, Sources
from tests.acceptance.every_option import WITH_EVERY_OPTION, every_option, processes_with_every_option
from tests.acceptance.metrics_listener import MetricsListener, listening
from tests.command_line import CommandLine
from tests.support import is_running
from tests.transport import check_transport

FOLDER = Path(__file__).parent
#: The plugins of the Airflow host, and its local settings.
HOST = {
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(FOLDER / "host" / "plugins"),
    "PYTHONPATH": os.pathsep.join(filter(None, (str(FOLDER / "host" / "path"), os.environ.get("PYTHONPATH")))),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that break ``stack`` for good behind all others of this folder."""
    places = [place for place, item in enumerate(items) if item.path.is_relative_to(FOLDER)]
    mine = sorted((items[place] for place in places), key=_is_last)
    for place, item in zip(places, mine, strict=True):
        items[place] = item


def _is_last(item: pytest.Item) -> bool:
    return isinstance(item, pytest.Function) and "doomed_stack" in item.fixturenames


@pytest.fixture(scope="package")
def metrics() -> Iterator[MetricsListener]:
    """Where ``stack`` sends its metrics."""
    with listening() as listener:
        yield listener


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """DAG bundles of ``stack`` beside that with everybody's DAGs."""
    sources = Sources(tmp_path_factory.mktemp("sources"))
    sources.make()
    return sources


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, metrics: MetricsListener, sources: Sources) -> Iterator[ModalStack]:
    """A running Airflow whose executor is ModalExecutor."""
    folder = _folder(tmp_path_factory)
    env, processes = {**metrics.env, **sources.env(folder), **HOST}, PROCESSES
    with ExitStack() as needed:
        if WITH_EVERY_OPTION:
            env = needed.enter_context(every_option(tmp_path_factory.mktemp("acme"), env))
            processes = processes_with_every_option(PROCESSES)
        running = needed.enter_context(stack_of(folder, processes, env, buckets=(sources.bucket,)))
        yield running
        # Not for a few tests of a developer's, which may run no task, nor after the end of the control plane.
        if "RELAY_TRANSPORT" in os.environ and is_running(running.local.pid):
            check_transport(running)


@pytest.fixture(scope="package")
def modalflow(stack: ModalStack) -> Iterator[CommandLine]:
    """``modalflow …`` in the environment of ``stack``, but for metrics: they would be those of one more process."""
    env = {name: value for name, value in stack.airflow.env.items() if not name.startswith("AIRFLOW__METRICS__")}
    with CommandLine(env, "modalflow") as command_line:
        yield command_line


@pytest.fixture
def doomed_stack(stack: ModalStack) -> ModalStack:
    """``stack``, for a test that breaks it for good."""
    return stack


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dags")
