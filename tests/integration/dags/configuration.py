"""A task that reports the configuration that it has, without its secrets."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from airflow.sdk import dag, task


@task
def reports_its_configuration() -> None:
    from airflow.configuration import conf
    from airflow.providers_manager import ProvidersManager

    # Older versions of Airflow list the options of providers only after this.
    manager: Any = ProvidersManager
    manager().initialize_providers_configuration()
    found = {
        f"[{section}] {option}": str(value)
        for section, options in conf.as_dict(display_sensitive=True, raw=False).items()
        for option, value in options.items()
    }
    everything = json.dumps([found, dict(os.environ)])
    report = {
        "hashes": {name: hashlib.sha256(value.encode()).hexdigest() for name, value in found.items()},
        "foreign": "planted-for-the-host" in everything,
        "key": "MODALFLOW_HOME_KEY" in os.environ,
    }
    print("configuration: " + json.dumps(report))


@dag(dag_id="d", schedule=None)
def d() -> None:
    reports_its_configuration()


d()
