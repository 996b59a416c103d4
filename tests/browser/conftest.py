"""One Chromium and one API server for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser

from tests.airflows import AIRFLOW
from tests.browser.api_server import api_server_process
from tests.browser.driving import Viewer, chromium


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    if AIRFLOW < (3, 1):
        pytest.skip("Airflow 3.0 has no place for the views")
    with chromium() as started:
        yield started


@pytest.fixture(scope="package")
def viewer(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    # The browser is first, because without one the test is skipped.
    with api_server_process(tmp_path_factory.mktemp("airflow")) as started:
        yield Viewer(browser, started["url"], started["tokens"])
