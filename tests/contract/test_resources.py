"""Cores, memory and GPUs: what containers occupy, what waits for it, and what comes of having too much."""

from __future__ import annotations

from collections.abc import Iterator

import modal
import pytest

from modalflow.emulator import LocalModal
from tests.contract.deploying import Deployed
from tests.support import wait_until

pytestmark = pytest.mark.local_only


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal(gpus={"H100": 1, "T4": 1}) as started:
        yield started


@pytest.fixture(scope="module")
def deployed(local: LocalModal) -> Iterator[Deployed]:
    client = modal.Client.from_credentials(local.address.token_id, local.address.token_secret)
    yield Deployed("resource_app", "resources", client)


def logged(deployed: Deployed, words: str) -> str:
    """The line of the app's log that has the words."""

    def line() -> str:
        entries = deployed.function("hold_gpu").logs.fetch()
        return next((entry.data for entry in entries if words in entry.data), "")

    return str(wait_until(line, timeout=20.0, what=f"{words!r} in the log"))
