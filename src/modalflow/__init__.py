"""Run Airflow workloads on Modal.

Owns the version and the public names for users' files, each imported at its first use. The import of this package must
stay free of Airflow, of Modal and of side effects: every container does it before its first input.
"""

import importlib
from typing import Any

__version__ = "0.4.0"

#: Name → its module. As texts, so an import of the version imports nothing else.
_WHERE = {
    "Worker": "modalflow.worker.deploy.definition",
    "Profile": "modalflow.worker.deploy.profile",
    "airflow_image": "modalflow.worker.deploy.images",
    "modal_config": "modalflow.config.task_options",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_WHERE})
