"""Names of modalflow's objects on Modal, from one app name; and stored names of logs.

Two deployments share a Modal environment by choosing different app names; nothing else needs to differ.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from modalflow.support.text import one_line

DEFAULT_APP = "modalflow"
DEFAULT_PROFILE = "default"

#: A container's folder for all files of modalflow. No user's Volume is mounted at it, above it or inside it
#: (``mounts``).
OWN_FOLDER = "/opt/modalflow"
#: The worker's paths of the logs Volume, the DAG bundles of its image, and a bucket of DAG bundles.
LOGS_MOUNT = f"{OWN_FOLDER}/logs"
BUNDLES_ROOT = f"{OWN_FOLDER}/bundles"
DAGS_MOUNT = f"{OWN_FOLDER}/dags"
#: The worker's path of the logs Volume for deployments without recorded mounts: one of the first versions of 0.4.
FIRST_LOGS_MOUNT = "/vol/logs"

#: The path of an Airflow API server's report on its modalflow, below the server's root (``airflow_plugin``).
VERSION_PATH = "/modalflow/version"

#: The header with the name of the relay, in answers of the Execution API over a relay.
RELAY_HEADER = "x-modalflow-relay"

#: Prefixes of variables reserved by modalflow or Modal.
RESERVED_VARIABLES = ("MODALFLOW_", "MODAL_")

#: Variables of a worker's image, each a JSON text: the grants of its profile (``Profile.granted``), and the names of
#: its variables from the profile or the deployment. They override the executor's.
PROFILE_VARIABLE = "MODALFLOW_PROFILE"
PROFILE_ENV_VARIABLE = "MODALFLOW_PROFILE_ENV"

#: The variable of a worker's image with the names of packed variables (worker.packing), as a JSON list.
PACKED_VARIABLE = "MODALFLOW_PACKED_ENV"

#: The file on the logs Volume with the record of the deployed worker.
DEPLOYMENT_FILE = "modalflow-deployment.json"

#: Environment variables in the image of every profile: the worker app's name, its DAG bundles as a JSON object (name →
#: folder), and a JSON list of the bundles of `modalflow sync`.
APP_VARIABLE = "MODALFLOW_APP"
BUNDLES_VARIABLE = "MODALFLOW_BUNDLES"
SYNCED_VARIABLE = "MODALFLOW_SYNCED_BUNDLES"

#: Tags of the deployed app, by which Modal's billing report can group.
APP_TAG, VERSION_TAG = "modalflow_app", "modalflow_version"

#: The deployed Function that hands relay keys over to relays. No profile has this name: theirs begin with ``run-``.
RELAY_KEY_FUNCTION = "relay-key"
#: The variables of the Secret with relay keys have this prefix, then the key's id.
RELAY_KEY_PREFIX = "MODALFLOW_RELAY_KEY_"

#: The environment variable with the worker's imports before its first task, as a JSON list of modules.
PRELOAD_VARIABLE = "MODALFLOW_PRELOAD"

#: The variable of a worker's container with the private key to the secret settings of the Airflow host. No process of a
#: task has it.
HOME_KEY_VARIABLE = "MODALFLOW_HOME_KEY"

#: The variable of a task with the console that `modalflow replay` offers it: ``MODE PORT TOKEN``.
CONSOLE_VARIABLE = "MODALFLOW_CONSOLE"
#: Its modes: after an error of the task, and instead of its execution.
DEBUG_CONSOLE, SHELL_CONSOLE = "debug", "shell"

#: Airflow's settings for masking in logs: (section, option). They travel with every workload.
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


#: The variable of Airflow with the Execution API's URL.
API_URL_VARIABLE = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"
#: The variable of a task over the relay with the host's own URL, for messages.
RELAYED_URL_VARIABLE = "MODALFLOW_RELAYED_URL"


def airflow_variable(section: str, option: str) -> str:
    """Return the environment variable of an Airflow option."""
    return f"AIRFLOW__{section.replace('.', '_').upper()}__{option.upper()}"


#: The folder of usage records on the logs Volume: a folder for each day, with the files of this day's containers.
USAGE_FOLDER = "modalflow-usage"
#: The folder in the folder of a day with samples (``cost.samples``): a file has those of the usage file of its name.
SAMPLES_FOLDER = "samples"
#: The folder beside it with the samples of running calls: a file for each container that started on this day.
RUNNING_FOLDER = "running"

_USAGE_FILE = re.compile(r".*-(?P<number>\d{4,})-(?P<time>\d{6})\.jsonl")


def usage_file(container_id: str, number: int, begun: datetime) -> str:
    """Return the name of a container's usage file, in the folder of the day in UTC on which it was begun."""
    return f"{container_id}-{number:04}-{begun:%H%M%S}.jsonl"


def usage_file_begun(day: str, name: str) -> datetime | None:
    """Return when a usage file was begun; None if its name does not show it, as from a worker before 0.5."""
    found = _USAGE_FILE.fullmatch(name)
    try:
        return datetime.strptime(f"{day} {found['time']} +0000", "%Y-%m-%d %H%M%S %z") if found else None
    except ValueError:
        return None


def running_samples(container_id: str, container_started_at: float) -> str:
    """Return the path of a container's samples of running calls. Raises ValueError for an impossible time."""
    try:
        day = datetime.fromtimestamp(container_started_at, UTC).date()
    except (OverflowError, OSError) as error:
        raise ValueError(f"no time: {container_started_at}") from error
    return f"{USAGE_FOLDER}/{day}/{RUNNING_FOLDER}/{file_name(container_id)}.jsonl"


#: The folder of Airflow homes on the logs Volume: what executors have published of their hosts' configuration.
HOMES_FOLDER = "modalflow-homes"

#: The folders of an Airflow home. Airflow puts the first two onto ``sys.path`` at its import. The third has modules of
#: the host's other folders. It must be there before, since Airflow imports secrets backends first.
HOME_PLUGINS = "plugins"
HOME_CONFIG = "config"
HOME_MODULES = "modules"

#: The section of an Airflow home with variables of the Airflow host, which are no options of Airflow's: name → value.
HOME_VARIABLES = "environment variables"


class TaskTry(NamedTuple):
    """One try of a task instance. It identifies work even if two labels are equal. In JSON, it is a list."""

    dag_id: str
    task_id: str
    run_id: str
    map_index: int = -1
    """-1 for an unmapped task."""
    try_number: int = 1

    @property
    def label(self) -> str:
        """Return its label. Two tries can share a label: to compare them, use the tuples."""
        return task_label(self.dag_id, self.task_id, self.run_id, self.try_number, self.map_index)

    @property
    def log_path(self) -> str:
        """Return where its log is, in Airflow's own default layout."""
        folder = task_log_folder(self.dag_id, self.task_id, self.run_id, self.map_index)
        return f"{folder}/{try_log(self.try_number)}"

    @property
    def instance(self) -> str:
        """Return a key for its task instance: the same for all tries, and of a limited length."""
        return short("\0".join((self.dag_id, self.task_id, self.run_id, str(self.map_index))))

    @classmethod
    def of_log(cls, log_path: str) -> TaskTry | None:
        """Return the try of a log path in that layout; None for another path, or one that can be read in two ways."""
        found = _TASK_LOG.fullmatch(log_path)
        if found is None or any(log_path.count(name) > 1 for name in ("/run_id=", "/task_id=", "/map_index=")):
            return None
        ids = found["dag_id"], found["task_id"], found["run_id"]
        return cls(*ids, int(found["map_index"] or -1), int(found["try_number"]))

    @classmethod
    def read(cls, wire: object) -> TaskTry | None:
        """Return the value of a JSON list; None for null. Raises ValueError for anything else.

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
    """Return the label of one try of a task instance."""
    index = f"[{map_index}]" if map_index >= 0 else ""
    return f"{dag_id}.{task_id}{index} run {run_id} try {try_number}"


def task_log_folder(dag_id: str, task_id: str, run_id: str, map_index: int = -1) -> str:
    """Return where Airflow's default layout has the logs of a task instance, a folder for each try."""
    mapped = f"/map_index={map_index}" if map_index >= 0 else ""
    return f"dag_id={dag_id}/run_id={run_id}/task_id={task_id}{mapped}"


def try_log(try_number: int) -> str:
    """Return the folder of one try's log, below the folder of its task instance."""
    return f"attempt={try_number}.log"


#: The names of ``try_log`` and of the folder of a mapped task instance, with their numbers.
TRY_LOG = re.compile(r"attempt=([0-9]{1,10})\.log")
MAP_INDEX = re.compile(r"map_index=([0-9]{1,10})")

_TASK_LOG = re.compile(
    r"dag_id=(?P<dag_id>.+)/run_id=(?P<run_id>.+)/task_id=(?P<task_id>.+?)(/map_index=(?P<map_index>\d+))?"
    r"/attempt=(?P<try_number>\d+)\.log"
)

_LOG_PART = re.compile(r"\.log\.\d{4,}$")


def log_file(started: datetime, writer: str) -> str:
    """Return the name of the first file that a process adds to a log. Names sort by the time in UTC."""
    return f"{started:%Y%m%dT%H%M%S.%f}Z-{writer}.log"


def log_part(first: str, number: int) -> str:
    """Return the name of a file in which a log continues, the first being number 0. Names sort by the number."""
    return f"{first}.{number:04}" if number else first


def is_log_part(path: str) -> bool:
    """Return whether a file of a log continues another one."""
    return _LOG_PART.search(path) is not None


def log_writer(path: str) -> str:
    """Return the path of the first file of the same writer, given a file of a log."""
    return _LOG_PART.sub(".log", path)


#: Longest file name in bytes (Linux, NAME_MAX).
LONGEST_NAME = 255

#: The end of a shortened name: a digest of the full name.
_DIGEST_LENGTH = 32
_STANDS_FOR_ANOTHER = re.compile(r".*~[0-9a-f]{32}", re.DOTALL)


def short(text: str) -> str:
    """Return a hexadecimal digest. Different texts have different digests."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_LENGTH]


def stored_log_path(log_path: str) -> str:
    """Return where a log is on the logs Volume, given its path in Airflow.

    Different paths stay different, and none leaves the Volume. A valid part stays unchanged. Any other part (longer
    than 255 bytes, empty, ``..``) becomes its beginning and a digest of the whole.
    """
    first, *others = log_path.split("/")
    own = first in (USAGE_FOLDER, HOMES_FOLDER, DEPLOYMENT_FILE)
    return "/".join([_replaced(first) if own else _stored_name(first), *map(_stored_name, others)])


def _stored_name(name: str) -> str:
    encoded = name.encode("utf-8", "replace")
    is_name = name not in ("", ".", "..") and "\0" not in name and len(encoded) <= LONGEST_NAME
    is_text = is_name and encoded.decode() == name
    return name if is_text and not _STANDS_FOR_ANOTHER.fullmatch(name) else _replaced(name)


def file_name(text: str) -> str:
    """Return a valid name for a file or folder: the text, or its beginning and a digest. Different texts stay
    different."""
    return _replaced(text) if "/" in text else _stored_name(text)


def _replaced(name: str) -> str:
    encoded = name.replace("\0", "").replace("/", "_").encode("utf-8", "ignore")[: LONGEST_NAME - _DIGEST_LENGTH - 1]
    return f"{encoded.decode('utf-8', 'ignore')}~{short(name)}"


#: Prefix of a work id: the ledger's key for the name of a cancelling user, for the executor's report.
CANCELLED_BY = "cancelled-by/"

#: Prefix of a task instance (``TaskTry.instance``): the ledger's key for the memory and time that its tries ran out of.
SHORTAGE = "shortage/"


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
        """The Modal Queue for outcomes from workers to executors, with one partition per executor."""
        return f"{self.app}-events"

    @property
    def relay(self) -> str:
        """The Modal Queue for requests to Airflow's Execution API, and their answers."""
        return f"{self.app}-relay"

    @property
    def relays(self) -> str:
        """The Dict for the relays' reports of their work."""
        return f"{self.app}-relays"

    @property
    def relay_secret(self) -> str:
        """The Modal Secret with the relay's keys."""
        return f"{self.app}-relay-keys"

    @property
    def executors(self) -> str:
        """The Dict for the executors' reports of their work."""
        return f"{self.app}-executors"

    @property
    def logs(self) -> str:
        """The Volume with the logs, the Airflow homes and the deployment file."""
        return f"{self.app}-logs"

    @property
    def home_key(self) -> str:
        """The Secret with the private key to the secret settings in Airflow homes."""
        return f"{self.app}-home-key"

    @property
    def dags(self) -> str:
        """The Volume with the versions of DAG bundles."""
        return f"{self.app}-dags"

    @staticmethod
    def function(profile: str) -> str:
        """The Function of a profile."""
        return f"run-{profile}"


def dashboard_url(object_id: str) -> str:
    """Return the address of an object's page on Modal, as the SDK's ``get_dashboard_url()`` does."""
    return f"https://modal.com/id/{object_id}"
