"""The installed version of Airflow, and the missing features of each version under ModalExecutor."""

from __future__ import annotations

from typing import Final

from airflow import __version__ as airflow_version

#: The installed version of Airflow.
AIRFLOW_VERSION: Final[str] = airflow_version

# Betas and release candidates count as their final version.
_MINOR = tuple(int(part) for part in AIRFLOW_VERSION.split(".")[:2])
AIRFLOW_V_3_1_PLUS: Final[bool] = _MINOR >= (3, 1)
AIRFLOW_V_3_2_PLUS: Final[bool] = _MINOR >= (3, 2)
AIRFLOW_V_3_3_PLUS: Final[bool] = _MINOR >= (3, 3)
AIRFLOW_V_3_4_PLUS: Final[bool] = _MINOR >= (3, 4)

#: What a version of Airflow lacks under ModalExecutor that the next one has: minor version → descriptions.
LACKING: Final[dict[str, tuple[str, ...]]] = {
    "3.0": (
        "a task that waits for its DAG file to appear on the worker",
        "a cleared task that is restarted as soon as it ended, rather than after its heartbeat timeout",
        "the abandoned try of a task in its history, after a scheduler died before anything had begun it",
    ),
    "3.1": (
        "callbacks (deadline alerts) on Modal",
        "an executor for each team",
        "Sentry's integration named by the executor",
        "a work id that Airflow assigns (modalflow stores its own, with one UPDATE for each task)",
        "`airflow modalflow …` where the executor is not configured (`modalflow …` is there)",
    ),
    "3.2": (
        "connection tests on Modal",
        "more than one callback of the deadlines that a DAG run has missed (whatever the executor)",
        "what a task fails with in Sentry (whatever the executor)",
    ),
    "3.3": (),
}


def lacking(minor: str) -> tuple[str, ...]:
    """Return the missing features of a minor version of Airflow, the newest first."""
    mine = tuple(int(part) for part in minor.split("."))
    listed = ((tuple(int(part) for part in version.split(".")), what) for version, what in LACKING.items())
    return tuple(thing for version, what in sorted(listed, reverse=True) if version >= mine for thing in what)
