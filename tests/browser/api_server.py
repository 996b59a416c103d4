"""The API server of tests in a browser, as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


@contextmanager
def api_server_process(folder: Path, prefix: str = "") -> Iterator[dict[str, Any]]:
    """Start ``server.py``; its address and a token for each user. ``prefix`` is the path of ``[api] base_url``."""
    # Airflow reads the URL when it is imported, so the port is chosen before.
    listening = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listening.getsockname()[1]}{prefix}"
    environment = os.environ | {"AIRFLOW_HOME": str(folder), "AIRFLOW__CORE__LOAD_EXAMPLES": "False"}
    if prefix:
        environment["AIRFLOW__API__BASE_URL"] = f"{url}/"
    log = folder / "server.log"
    with log.open("w") as errors:
        server = subprocess.Popen(
            [sys.executable, "-m", "tests.browser.server", str(folder), str(listening.fileno())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            pass_fds=[listening.fileno()],
            text=True,
        )
    listening.close()
    try:
        assert server.stdout is not None
        # Some versions of Airflow log to standard output while they are imported.
        line = next((line for line in server.stdout if line.startswith('{"url"')), "")
        assert line, log.read_text()
        yield {"url": url, "tokens": json.loads(line)}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.communicate()
