"""Run Airflow workloads on Modal.

Owns the version and the public names for users' files, each imported at its first use. The import of this package must
stay free of Airflow, of Modal and of side effects: every container does it before its first input.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # For type checkers, editors and the API reference; at run time __getattr__ imports them.
    from modalflow.config.task_options import modal_config as modal_config
    from modalflow.worker.deploy.images import airflow_image as airflow_image
    from modalflow.worker.deploy.profile import Profile as Profile
    from modalflow.worker.deploy.worker import Worker as Worker

__version__ = "0.5.0.dev0"

#: Name → its module. As texts, so an import of the version imports nothing else.
_WHERE = {
    "Worker": "modalflow.worker.deploy.worker",
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
