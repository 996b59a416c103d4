"""One Chromium and one API server for the tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.browser.api_server import api_server_process
from tests.browser.driving import Viewer, chromium


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    # The browser is first, because without one the test is skipped.
    with chromium() as browser, api_server_process(tmp_path_factory.mktemp("airflow")) as started:
        yield Viewer(browser, started["url"], started["tokens"])
