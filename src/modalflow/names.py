"""The names of everything that modalflow owns on Modal, derived from one app name.

Two deployments share a Modal environment by choosing different app names; nothing else needs to differ.
"""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_APP = "modalflow"
DEFAULT_PROFILE = "default"

#: Where a worker finds the logs Volume, and where the DAG bundles that were baked into its image are.
LOGS_MOUNT = "/vol/logs"
BUNDLES_ROOT = "/opt/modalflow/bundles"
#: Where it finds a bucket of DAG bundles.
DAGS_MOUNT = "/vol/dags"

#: Folders of a container and beginnings of variables that are modalflow's own or Modal's.
RESERVED_FOLDERS = (LOGS_MOUNT, "/opt/modalflow", "/proc", "/sys", "/dev")
RESERVED_VARIABLES = ("MODALFLOW_", "MODAL_")

#: Variables of a worker's image, each a JSON text: what its profile grants (``worker.profile.Profile.granted``), and
#: the names of those of its variables that the profile or the deployment set: they count above the executor's.
PROFILE_VARIABLE = "MODALFLOW_PROFILE"
PROFILE_ENV_VARIABLE = "MODALFLOW_PROFILE_ENV"

#: The variable of a worker's image that names, as a JSON list, the variables whose values are packed (worker.packing).
PACKED_VARIABLE = "MODALFLOW_PACKED_ENV"

#: The file on the logs Volume that tells which worker is deployed.
DEPLOYMENT_FILE = "modalflow-deployment.json"

#: Environment variables that the image of every profile has: the worker app's name, its DAG bundles as a JSON object,
#: name → folder, and a JSON list of those that `modalflow sync` brings to the Volume.
APP_VARIABLE = "MODALFLOW_APP"
BUNDLES_VARIABLE = "MODALFLOW_BUNDLES"
SYNCED_VARIABLE = "MODALFLOW_SYNCED_BUNDLES"

#: The environment variable that tells a worker what to import before its first task: a JSON list of modules.
PRELOAD_VARIABLE = "MODALFLOW_PRELOAD"

#: The folder on the logs Volume with the records of what work occupied: a folder for each day, with the files of the
#: containers that ended something on it.
USAGE_FOLDER = "modalflow-usage"


def task_label(dag_id: str, task_id: str, run_id: str, try_number: int | str, map_index: int = -1) -> str:
    """What a human calls one try of a task instance."""
    index = f"[{map_index}]" if map_index >= 0 else ""
    return f"{dag_id}.{task_id}{index} run {run_id} try {try_number}"


def task_log_folder(dag_id: str, task_id: str, run_id: str, map_index: int = -1) -> str:
    """Where the logs of a task instance are on the logs Volume, a folder for each try: Airflow's own default layout."""
    mapped = f"/map_index={map_index}" if map_index >= 0 else ""
    return f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}{mapped}"


def try_log(try_number: int) -> str:
    """The folder of one try's log, below that of its task instance."""
    return f"attempt={try_number}.log"


#: Before a work id: the key in the ledger under which who cancels work by hand says so, for the executor to tell.
CANCELLED_BY = "cancelled-by/"


@dataclass(frozen=True)
class Names:
    """Modal object names for one worker app."""

    app: str = DEFAULT_APP

    @property
    def ledger(self) -> str:
        """The Dict with one entry per work id."""
        return f"{self.app}-ledger"

    @property
    def events(self) -> str:
        """The Modal Queue on which workers tell executors of outcomes, one partition per executor."""
        return f"{self.app}-events"

    @property
    def executors(self) -> str:
        """The Dict in which every executor tells what it has in flight."""
        return f"{self.app}-executors"

    @property
    def logs(self) -> str:
        """The Volume with the logs and the deployment file."""
        return f"{self.app}-logs"

    @property
    def dags(self) -> str:
        """The Volume with the versions of DAG bundles."""
        return f"{self.app}-dags"

    @staticmethod
    def function(profile: str) -> str:
        """The Function of a profile."""
        return f"run-{profile}"
