"""The names of everything that modalflow owns on Modal, derived from one app name; and of what a log is stored under.

Two deployments share a Modal environment by choosing different app names; nothing else needs to differ.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import NamedTuple

from modalflow.support.text import one_line

DEFAULT_APP = "modalflow"
DEFAULT_PROFILE = "default"

#: The folder of a container in which everything of modalflow's is: no Volume of a user's is mounted at it, above it or
#: inside it (``mounts``).
OWN_FOLDER = "/opt/modalflow"
#: Where a worker finds the logs Volume, the DAG bundles of its image, and a bucket of DAG bundles.
LOGS_MOUNT = f"{OWN_FOLDER}/logs"
BUNDLES_ROOT = f"{OWN_FOLDER}/bundles"
DAGS_MOUNT = f"{OWN_FOLDER}/dags"
#: Where a worker has the logs Volume whose deployment recorded no mounts: one of the first versions of 0.4.
FIRST_LOGS_MOUNT = "/vol/logs"

#: Where an Airflow API server reports which modalflow it imports, below its root (``airflow_plugin``).
VERSION_PATH = "/modalflow/version"

#: Beginnings of variables that are modalflow's own or Modal's.
RESERVED_VARIABLES = ("MODALFLOW_", "MODAL_")

#: Variables of a worker's image, each a JSON text: what its profile grants (``Profile.granted``), and
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

#: Airflow's settings of what is masked in logs: (section, option). They travel with every workload.
MASKING_OPTIONS = (
    ("core", "hide_sensitive_var_conn_fields"),
    ("core", "sensitive_var_conn_names"),
    ("logging", "min_length_masked_secret"),
    ("logging", "secret_mask_adapter"),
)

#: Airflow's settings of the client with which a worker talks to the Execution API: (section, option).
API_CLIENT_OPTIONS = (
    ("workers", "execution_api_retries"),
    ("workers", "execution_api_retry_wait_min"),
    ("workers", "execution_api_retry_wait_max"),
    ("workers", "execution_api_timeout"),
)


def airflow_variable(section: str, option: str) -> str:
    """Return the environment variable that sets an option of Airflow's."""
    return f"AIRFLOW__{section.upper()}__{option.upper()}"


#: The folder on the logs Volume with the records of what work occupied: a folder for each day, with the files of the
#: containers that ended something on it.
USAGE_FOLDER = "modalflow-usage"


class TaskTry(NamedTuple):
    """One try of a task instance: what identifies work, also if two labels read the same. JSON has it as a list."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    """-1 for a task that is not mapped."""
    try_number: int = 1

    @property
    def label(self) -> str:
        """Return what people call it. Two tries can share a label: compare the tuples instead."""
        return task_label(self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    @property
    def log_path(self) -> str:
        """Return where its log is, in Airflow's own default layout."""
        folder = task_log_folder(self.dag_id, self.task_id, self.run_id, self.map_index)
        return f"{folder}/{try_log(self.try_number)}"

    @classmethod
    def read(cls, wire: object) -> TaskTry | None:
        """Return what a JSON list says, or None for null; raise ValueError for anything else.

        The ids are as they were written, by any process: clean them before you print them.
        """
        if wire is None:
            return None
        # Not isinstance: JSON's true is no number here.
        if isinstance(wire, list | tuple) and tuple(map(type, wire)) == _TRY_TYPES:
            read = cls(*wire)
            if all(-1 <= number <= _LARGEST_NUMBER for number in (read.map_index, read.try_number)):
                return read
        raise ValueError(f"a try of a task instance is {one_line(repr(wire))}")


_TRY_TYPES = (str, str, str, int, int)
#: Airflow stores both numbers in columns of four bytes.
_LARGEST_NUMBER = 2**31 - 1


def task_label(dag_id: str, task_id: str, run_id: str, try_number: int | str, map_index: int = -1) -> str:
    """Return what people call one try of a task instance."""
    index = f"[{map_index}]" if map_index >= 0 else ""
    return f"{dag_id}.{task_id}{index} run {run_id} try {try_number}"


def task_log_folder(dag_id: str, task_id: str, run_id: str, map_index: int = -1) -> str:
    """Return where Airflow's default layout has the logs of a task instance, a folder for each try."""
    mapped = f"/map_index={map_index}" if map_index >= 0 else ""
    return f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}{mapped}"


def try_log(try_number: int) -> str:
    """Return the folder of one try's log, below that of its task instance."""
    return f"attempt={try_number}.log"


#: Bytes that a file name can have (Linux, NAME_MAX).
LONGEST_NAME = 255

#: The end of a stored name that stands for another one: a digest of it.
_DIGEST_LENGTH = 32
_STANDS_FOR_ANOTHER = re.compile(r".*~[0-9a-f]{32}", re.DOTALL)


def short(text: str) -> str:
    """Return a digest that differs for different texts, as hexadecimal digits."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def stored_log_path(log_path: str) -> str:
    """Return where a log is on the logs Volume, given its path in Airflow.

    Paths that differ stay different, and none leaves the Volume. A part that is a file name already stays as it is;
    another one (one of more than 255 bytes, an empty one, ``..``) becomes its beginning and a digest of the whole.
    """
    first, *others = log_path.split("/")
    own = first in (USAGE_FOLDER, DEPLOYMENT_FILE)
    return "/".join([_replaced(first) if own else _stored_name(first), *map(_stored_name, others)])


def _stored_name(name: str) -> str:
    encoded = name.encode("utf-8", "replace")
    is_name = name not in ("", ".", "..") and "\0" not in name and len(encoded) <= LONGEST_NAME
    is_text = is_name and encoded.decode() == name
    return name if is_text and not _STANDS_FOR_ANOTHER.fullmatch(name) else _replaced(name)


def file_name(text: str) -> str:
    """Return what one file or folder can be called: the text, or its beginning and a digest. Different texts differ."""
    return _replaced(text) if "/" in text else _stored_name(text)


def _replaced(name: str) -> str:
    encoded = name.replace("\0", "").replace("/", "_").encode("utf-8", "ignore")[: LONGEST_NAME - _DIGEST_LENGTH - 1]
    return f"{encoded.decode('utf-8', 'ignore')}~{short(name)}"


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
