"""One Airflow on a local control plane for all tests here that leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.programs.ports import free_port
from tests.acceptance.airflow_on_modal import stack_of
from tests.acceptance.dag_sources import Sources
from tests.acceptance.metrics_listener import MetricsListener, listening


@pytest.fixture(scope="package")
def metrics() -> Iterator[MetricsListener]:
    """Where ``stack`` sends its metrics."""
    with listening() as listener:
        yield listener


@pytest.fixture(scope="package")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sources]:
    """DAG bundles of ``stack`` beside that with everybody's DAGs."""
    sources = Sources(tmp_path_factory.mktemp("sources"), free_port())
    sources.make()
    with sources.served():
        yield sources


@pytest.fixture(scope="package")
def stack(tmp_path_factory: pytest.TempPathFactory, metrics: MetricsListener, sources: Sources) -> Iterator[ModalStack]:
    """A running Airflow whose executor is ModalExecutor."""
    folder = _folder(tmp_path_factory)
    with stack_of(folder, sources.processes(), {**metrics.env, **sources.env(folder)}) as running:
        yield running


@pytest.fixture
def own_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ModalStack]:
    """A stack for a test that breaks it."""
    with stack_of(_folder(tmp_path_factory)) as running:
        yield running


def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dags")
