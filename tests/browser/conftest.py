"""One Chromium and one API server for the tests of a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.browser.driving import Viewer, chromium, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    folder = tmp_path_factory.mktemp("airflow")
    # First, because it skips.
    with chromium() as browser, (folder / "server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.server", str(folder)],
            cwd=ROOT,
            env=environment(str(folder)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
            text=True,
        )
        try:
            assert server.stdout is not None
            line = next((line for line in server.stdout if line.startswith('{"url"')), "")
            assert line, (folder / "server.log").read_text()
            started = json.loads(line)
            yield Viewer(browser, started["url"], started["tokens"])
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.communicate()
