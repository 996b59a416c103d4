"""What runs on one worker where tests run on several: what shares a fixture that takes long to make.

Not xdist's own groups: up to xdist 3.8 they are a part of test ids that pytest 9.2 no longer lets it set, so that each
worker made every fixture of a module or package, Airflows included.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]  # It has no annotations.

#: Folders whose tests share an Airflow, but for those of the files that have one of their own.
ONE_AIRFLOW: Final = ("tests/acceptance", "tests/chaos")
OWN_AIRFLOW: Final = frozenset(
    f"tests/acceptance/{name}.py"
    for name in ("test_demo_command", "test_first_gpu_task", "test_host_settings", "test_several_executors")
)


def scope_of(test_id: str) -> str:
    """The name of what a test runs together with: its file, or the folder that shares an Airflow."""
    file = test_id.partition("::")[0]
    folder = file.rpartition("/")[0]
    return folder if folder in ONE_AIRFLOW and file not in OWN_AIRFLOW else file


class Scopes(LoadScopeScheduling):  # type: ignore[misc]  # See its import.
    """Hands scopes to whoever is idle, in the order of the folders: those that take longest come first."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return scope_of(nodeid)
