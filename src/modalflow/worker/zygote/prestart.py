"""The zygote that a container starts while Modal sets the container up, before its first input.

The import of Airflow takes seconds. It runs beside what Modal's runtime still has to do, and beside the claim. With a
memory snapshot it finishes before the snapshot is taken, so that containers begin with Airflow imported. Some things
must differ between two containers: their identity, their variables, their clients and their random numbers. The first
input, which comes after the snapshot, makes them (container.py), or each fork of the zygote does (server.py).
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

import modal

from modalflow.bundles.files import VolumeFiles
from modalflow.names import (
    APP_VARIABLE,
    BUNDLES_VARIABLE,
    DEFAULT_APP,
    FIRST_LOGS_MOUNT,
    HOME_KEY_VARIABLE,
    LOGS_MOUNT,
    Names,
)
from modalflow.worker import environment
from modalflow.worker.airflow_home.airflow_homes import AirflowHomes, MountedFiles
from modalflow.worker.airflow_home.own_home import OwnHome
from modalflow.worker.zygote.client import ZygoteProcess

log = logging.getLogger(__name__)

#: Modal's runtime sets this variable in a container whose memory it is about to snapshot, and in those restored from
#: it (modal/_container_entrypoint.py). The snapshot is taken when the module of the Function has been imported.
SNAPSHOT_VARIABLE = "MODAL_ENABLE_SNAP_RESTORE"

#: Seconds that a snapshot waits for the zygote. A zygote that needs longer goes on importing in each container.
_SNAPSHOT_TIMEOUT = 120.0


@dataclass(frozen=True)
class Prestart:
    """What a container has before its first input."""

    home: str
    """A folder that only this container uses: Airflow's home if no executor has published one."""
    airflow_homes: AirflowHomes
    baked: Mapping[str, str]
    """The DAG bundles that are in a folder from the start, of the image or of a bucket: name → folder."""
    env: Mapping[str, str]
    """The zygote's environment: that of a workload that brings no variables along, with the newest Airflow home."""
    zygote: ZygoteProcess | None
    """None if there is no Airflow, or if the zygote could not be started. The first workload then starts one."""
    log_root: str = LOGS_MOUNT
    """The folder of the logs Volume."""

    @classmethod
    def start(cls, variables: Mapping[str, str], private_key: str = "") -> Prestart:
        """Start a zygote in a container with these variables; wait for it only if a snapshot will be taken.

        ``private_key`` is the one for secret settings of the Airflow host.
        """
        home = tempfile.mkdtemp(prefix="modalflow-airflow-")
        # Containers of a local control plane may share this machine's /tmp.
        atexit.register(shutil.rmtree, home, ignore_errors=True)
        baked = json.loads(variables.get(BUNDLES_VARIABLE, "{}"))
        log_root = logs_mount(lambda path: Path(path).exists())
        names = Names(variables.get(APP_VARIABLE, DEFAULT_APP))
        remote = VolumeFiles(modal.Volume.from_name(names.logs))
        homes = AirflowHomes(
            Path(home, "homes"), MountedFiles(Path(log_root)), remote, private_key, OwnHome.of(variables)
        )
        env = environment.of_workload(
            variables, {}, home=home, folders=baked, log_root=log_root, airflow=homes.newest()
        )
        if importlib.util.find_spec("airflow") is None:
            return cls(home, homes, baked, env, None, log_root)
        try:
            zygote = ZygoteProcess.start(env, airflow=True)
        except OSError as error:
            log.warning("No zygote was started before the first input: %s", error)
            return cls(home, homes, baked, env, None, log_root)
        if variables.get(SNAPSHOT_VARIABLE) == "1" and not zygote.wait_until_ready(_SNAPSHOT_TIMEOUT):
            log.warning("The memory snapshot lacks Airflow: the import took more than %s s", _SNAPSHOT_TIMEOUT)
        return cls(home, homes, baked, env, zygote, log_root)


def logs_mount(exists: Callable[[str], bool]) -> str:
    """Return the folder of the logs Volume in this container.

    An executor that has not read the newest deployment record mounts a task's own Volumes together with the logs
    Volume. It then uses the path that the previous worker had for it.
    """
    return FIRST_LOGS_MOUNT if not exists(LOGS_MOUNT) and exists(FIRST_LOGS_MOUNT) else LOGS_MOUNT


_started: Prestart | None = None


def start() -> None:
    """Start the zygote of this container. Never raises: the first input tries again, and reports the problem."""
    global _started
    try:
        _started = _start()
    except Exception:
        log.exception("The zygote could not be started before the first input")


def pop() -> Prestart:
    """Return what ``start`` started, the first time; start it now if nothing is there."""
    global _started
    started, _started = _started, None
    try:
        return started or _start()
    finally:
        # Modal sets variables anew in a container that is restored from a snapshot.
        os.environ.pop(HOME_KEY_VARIABLE, None)


def _start() -> Prestart:
    # No other process of the container gets the key: the processes of tasks inherit the variables.
    return Prestart.start(os.environ, os.environ.pop(HOME_KEY_VARIABLE, ""))
