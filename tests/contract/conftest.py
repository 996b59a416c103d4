"""Which control plane the contract tests talk to: the local one, or Modal where there are credentials for it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass

import modal
import pytest

from modalflow.emulator.local import LocalModal
from tests import live
from tests.sdk import client_of


@dataclass(frozen=True)
class Live:
    """The live service, seen as tests see a LocalModal."""

    env: dict[str, str]
    url: str = live.LIVE_URL


LIVE = Live(found) if (found := live.credentials()) else None


def pytest_report_header(config: pytest.Config) -> str:
    return f"contract tests talk to: {live.where()}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if LIVE is not None:
        for item in items:
            if item.get_closest_marker("local_only"):
                item.add_marker(pytest.mark.skip(reason="the live service does not offer it"))


@pytest.fixture(scope="session")
def local() -> Iterator[LocalModal | Live]:
    """The control plane under test. Its variables are in this process's environment, as a user's would be."""
    before = dict(os.environ)
    try:
        if LIVE is not None:
            os.environ.update(LIVE.env)
            yield LIVE
            return
        # Other tests of this process talk to control planes of their own.
        with LocalModal(as_default=False) as control_plane:
            os.environ.update(control_plane.env)
            yield control_plane
    finally:
        os.environ.clear()
        os.environ.update(before)


@pytest.fixture(scope="session")
def client(local: LocalModal | Live) -> Iterator[modal.Client]:
    """The SDK's client for it."""
    with client_of(local.url, local.env) as connected:
        yield connected


@pytest.fixture
def name() -> str:
    """A name for a Modal object that no other test uses."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def dict_(client: modal.Client, name: str) -> Iterator[modal.Dict]:
    """A named, empty Dict."""
    yield modal.Dict.from_name(name, create_if_missing=True, client=client).hydrate(client)
    modal.Dict.objects.delete(name, allow_missing=True, client=client)


@pytest.fixture
def notes(dict_: modal.Dict) -> modal.Dict:
    """A Dict through which a function tells how far it got; its name is given to the function."""
    return dict_


@pytest.fixture
def queue_(client: modal.Client, name: str) -> Iterator[modal.Queue]:
    """A named, empty Queue."""
    yield modal.Queue.from_name(name, create_if_missing=True, client=client).hydrate(client)
    modal.Queue.objects.delete(name, allow_missing=True, client=client)


@pytest.fixture(params=[1, 2], ids=["v1", "v2"])
def volume(request: pytest.FixtureRequest, client: modal.Client, name: str) -> Iterator[modal.Volume]:
    """A named, empty Volume, of either version."""
    yield modal.Volume.from_name(name, create_if_missing=True, version=request.param, client=client).hydrate(client)
    modal.Volume.objects.delete(name, allow_missing=True, client=client)
