"""The API server of tests in a browser, as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def api_server_process(folder: Path) -> Iterator[dict[str, Any]]:
    """Start ``server.py``; its address and a token for each user."""
    environment = os.environ | {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    log = folder / "server.log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.server", str(folder)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            text=True,
        )
    try:
        assert server.stdout is not None
        # Some versions of Airflow log to standard output while they are imported.
        line = next((line for line in server.stdout if line.startswith('{"url"')), "")
        assert line, log.read_text()
        yield json.loads(line)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
