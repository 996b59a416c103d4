"""The common stack with another value than the default for every option that a task can read.

Only if the environment variable MODALFLOW_EVERY_OPTION is set: the suite otherwise tests Airflow as most users have it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from modalflow.airflow_compat.configuration import own_conf
from modalflow.names import airflow_variable
from tests.acceptance.receivers import receiving
from tests.every_option.values import MODULES, Key, changed

WITH_EVERY_OPTION: Final = bool(os.environ.get("MODALFLOW_EVERY_OPTION"))

#: Option → why the common stack keeps its default. Each has another value in ``test_host_settings`` or
#: ``test_host_configuration``.
KEPT: Final[Mapping[Key, str]] = {
    ("metrics", "statsd_on"): "Airflow has one client of metrics, and the tests of metrics receive OpenTelemetry's.",
    ("metrics", "otel_prefix"): "The tests of metrics read the names with Airflow's prefix.",
    ("metrics", "otel_ssl_active"): "The receiver of the tests has no certificate.",
    ("traces", "otel_ssl_active"): "The receiver of the tests has no certificate.",
}

#: The queues of the triggers, by those of their tasks: `[triggerer] queues_enabled` gives each trigger one.
_QUEUES: Final = "acme,default,etl"


@contextmanager
def every_option(folder: Path, env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """The variables of a stack with all options. Those in ``env`` override them: addresses of the tests' own."""
    values = {airflow_variable(*key): value for key, value in changed(folder).items() if key not in KEPT}
    path = os.pathsep.join(filter(None, (str(MODULES), env.get("PYTHONPATH"))))
    with receiving() as received:
        yield {
            **values,
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{received.trace_port}/v1/traces",
            # Containers have no network, and a task and its supervisor each wait so long for the receivers, in seconds.
            "OTEL_EXPORTER_OTLP_TIMEOUT": "0.5",
            **env,
            "PYTHONPATH": path,
        }


def unchanged_in(env: Mapping[str, str], folder: Path) -> list[Key]:
    """Return the options that have their default in an environment, of those that have another value elsewhere."""
    conf: Any = own_conf()
    found = {key: env.get(airflow_variable(*key)) for key in changed(folder)}
    return [key for key, value in found.items() if value in (None, str(conf.get_default_value(*key) or ""))]


def processes_with_every_option(processes: Mapping[str, Sequence[str]]) -> dict[str, Sequence[str]]:
    """Return the processes of a stack, with a triggerer for the queues of the tests if triggers have queues."""
    if ("triggerer", "queues_enabled") not in changed(Path()):
        return dict(processes)
    return {
        name: (*command, "--queues", _QUEUES) if name == "triggerer" else command for name, command in processes.items()
    }
