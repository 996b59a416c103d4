"""The zygote that a container starts while Modal sets it up, before it takes its first input.

Airflow's import, seconds long, then goes on beside what Modal's runtime still has to do, and beside the claim. With a
memory snapshot it is over before the snapshot is taken, so that containers begin with Airflow imported. Whatever must
not be the same in two containers is made by the first input, which comes after the snapshot (container.py), or by each
fork of the zygote (zygote.py): the identity of the container, its variables, its clients, and random numbers.
"""

from __future__ import annotations

import atexit
import importlib.util
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from modalflow.names import BUNDLES_VARIABLE, FIRST_LOGS_MOUNT, LOGS_MOUNT
from modalflow.worker import environment
from modalflow.worker.zygote.process import ZygoteProcess

log = logging.getLogger(__name__)

#: Modal's runtime sets it in a container of which a memory snapshot is about to be taken, and in those made of it
#: (modal/_container_entrypoint.py). Functions are snapshotted when their module has been imported.
SNAPSHOT_VARIABLE = "MODAL_ENABLE_SNAP_RESTORE"

#: Seconds that a snapshot waits for the zygote. One that takes longer goes on importing in each container.
_SNAPSHOT_PATIENCE = 120.0


@dataclass(frozen=True)
class Early:
    """What a container has before its first input."""

    home: str
    """A folder that only this container uses: Airflow's home."""
    baked: Mapping[str, str]
    """The DAG bundles that are in a folder from the start, of the image or a bucket: name → folder."""
    env: Mapping[str, str]
    """The zygote's: a workload's of which the container's own variables say all."""
    zygote: ZygoteProcess | None
    """None where there is no Airflow, or where it could not be started: then a workload starts its own."""
    log_root: str = LOGS_MOUNT
    """Where the logs Volume is."""

    @classmethod
    def start(cls, variables: Mapping[str, str]) -> Early:
        """Start in a container with these variables; wait for the zygote only where a snapshot will be taken."""
        home = tempfile.mkdtemp(prefix="modalflow-airflow-")
        # Only matters where containers share a machine's /tmp, as they may on a local control plane.
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        baked = json.loads(variables.get(BUNDLES_VARIABLE, "{}"))
        log_root = logs_mount(lambda path: Path(path).exists())
        env = environment.of_workload(variables, {}, home=home, folders=baked, log_root=log_root)
        if importlib.util.find_spec("airflow") is None:
            return cls(home, baked, env, None, log_root)
        try:
            zygote = ZygoteProcess.start(env, airflow=True)
        except OSError as error:
            log.warning("No zygote was started before the first input: %s", error)
            return cls(home, baked, env, None, log_root)
        if variables.get(SNAPSHOT_VARIABLE) == "1" and not zygote.wait_until_ready(_SNAPSHOT_PATIENCE):
            log.warning("The memory snapshot is without Airflow: its import was not over in %s s", _SNAPSHOT_PATIENCE)
        return cls(home, baked, env, zygote, log_root)


def logs_mount(exists: Callable[[str], bool]) -> str:
    """Return where the logs Volume is in this container.

    An executor that has not read the newest record yet binds a task's own Volumes together with the logs Volume where
    the worker of before had it.
    """
    return FIRST_LOGS_MOUNT if not exists(LOGS_MOUNT) and exists(FIRST_LOGS_MOUNT) else LOGS_MOUNT


_early: Early | None = None


def start() -> None:
    """Start for the container of this process. Never raises: the first input tries again, and tells."""
    global _early
    try:
        _early = Early.start(os.environ)
    except Exception:
        log.exception("Nothing was started before the first input")


def take() -> Early:
    """What ``start`` started, once; started now where it was not."""
    global _early
    early, _early = _early, None
    return early or Early.start(os.environ)
