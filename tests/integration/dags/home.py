"""Tasks that print the Airflow that they find."""

from __future__ import annotations

import json
import os
from pathlib import Path

from airflow.sdk import dag, task


@task
def prints_its_home(**context: object) -> None:
    from airflow.configuration import conf

    names = ("MODALFLOW_HOME_KEY", "AIRFLOW__ACME__ODD")
    print(
        "home: "
        + json.dumps(
            {
                "folder": os.environ["AIRFLOW_HOME"],
                "settings": {name: conf.get("acme", name, fallback=None) for name in ("plain", "secret", "odd")},
                "files": sorted(str(path) for path in Path(os.environ["AIRFLOW_HOME"]).rglob("*.py")),
                "variables": [name for name in names if name in os.environ],
            }
        )
    )


@dag(dag_id="d", schedule=None)
def d() -> None:
    prints_its_home()


d()
