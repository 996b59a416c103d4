"""The backends named by settings, and the packages enabled by settings: imported once, for all forks of a zygote.

Imports Airflow. Must make no backend: its constructor may open a connection.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Final

from modalflow.airflow_compat.configuration import load_provider_options, own_conf

#: Options with the class or the function of a backend. Airflow imports it in a task, at its first use: that of e-mails
#: when a task has failed. In each line, the first option with a value is in use.
_CLASSES: Final = (
    (("workers", "secrets_backend"), ("secrets", "backend")),
    (("workers", "state_store_backend"),),
    (("email", "email_backend"),),
)

#: Option of [metrics] → modules for the process of each task if it is on. A missing one is skipped: Airflow reports it
#: in the log of each task.
_METRICS: Final[Mapping[str, Sequence[str]]] = {
    "statsd_on": ("statsd", "airflow.sdk.observability.metrics.statsd_logger"),
    "statsd_datadog_enabled": ("datadog", "airflow.sdk.observability.metrics.datadog_logger"),
    "otel_on": (
        "airflow.sdk.observability.metrics.otel_logger",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
    ),
}


def import_backends() -> None:
    """Import them; if a class cannot be imported, raise Airflow's error with the setting."""
    load_provider_options()
    conf = own_conf()
    for options in _CLASSES:
        for section, option in options:
            if value := conf.get(section, option, fallback=""):
                # Airflow's own backend is in every image, and not every task needs it.
                if value != conf.get_default_value(section, option):
                    conf.getimport(section, option)
                break
    for option, modules in _METRICS.items():
        if conf.getboolean("metrics", option, fallback=False):
            for module in modules:
                with contextlib.suppress(ImportError):
                    import_module(module)
