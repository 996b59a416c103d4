"""DAG bundles beside the one that the worker is deployed with: shipped, of a Git repository, and Airflow's examples."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from modalflow.bundles.configured import LOCAL_BUNDLE, VOLUME_BUNDLE
from modalflow.demo.modal_stack import ModalStack
from modalflow.demo.stack import BUNDLE, SEPARATE

SHIPPED, GIT = "shipped", "from-git"
#: The bucket of ``worker.py``, and the variable with its path.
BUCKET, VARIABLE = "sources", "DAG_SOURCES"
HAS_GIT = find_spec("airflow.providers.git") is not None

PARSE_INTERVAL = "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL"

#: A DAG of two tasks: the second says which code it runs.
DAG = """
import time

from airflow.sdk import Variable, dag, get_current_context, task

from {helper} import CODE


@task
def wait():
    gate = get_current_context()["dag_run"].conf["gate"]
    for _ in range(600):
        if Variable.get(gate, default="closed") == "open":
            return
        time.sleep(0.2)
    raise TimeoutError(gate)


@task
def say():
    return CODE


@dag(dag_id="{dag_id}", schedule=None)
def made():
    wait() >> say()


made()
"""

#: Parses some files into Airflow's database, each given as ``bundle=file``, as its DAG processor does with all of them.
PARSE = """
import sys
from airflow.dag_processing.bundles.manager import DagBundlesManager
try:
    from airflow.dag_processing.dagbag import BundleDagBag as Bag, sync_bag_to_db
except ImportError:
    from airflow.models.dagbag import DagBag as Bag, sync_bag_to_db
for given in sys.argv[1:]:
    name, _, file = given.partition("=")
    bundle = DagBundlesManager().get_bundle(name)
    bundle.initialize()
    bag = Bag(dag_folder=str(bundle.path / file), bundle_path=bundle.path, safe_mode=True, load_op_links=False, **(
        {"bundle_name": name} if Bag.__name__ == "BundleDagBag" else {}))
    assert bag.dags and not bag.import_errors, bag.import_errors
    sync_bag_to_db(bag, name, None)
"""


@dataclass(frozen=True)
class Sources:
    """Two folders with a DAG each: one that is shipped, and one that is a Git repository's."""

    root: Path

    @property
    def shipped(self) -> Path:
        return self.root / "shipped"

    @property
    def repository(self) -> Path:
        return self.root / "repository"

    @property
    def url(self) -> str:
        return f"file://{self.repository}"

    @property
    def bucket(self) -> str:
        """The option of the control plane for ``worker.py``: containers without a network have this folder as it is.

        Of the machine's own files, a container may not see a change.
        """
        return f"{BUCKET}={self.root}"

    def make(self) -> None:
        """Write the first version of each."""
        for folder, name in ((self.shipped, "pinned"), (self.repository, "committed")):
            folder.mkdir()
            self.edit(folder, name, "one")
        if HAS_GIT:
            self._git("init", "-q", "-b", "main")
            self.commit("one")

    def edit(self, folder: Path, name: str, code: str) -> None:
        """Change what the second task returns, in a file beside the DAG's, and a comment in the DAG's file.

        Airflow parses a file that changed at once, and a file of a new version within ``min_file_process_interval``.
        """
        (folder / f"code_of_{name}.py").write_text(f"CODE = {code!r}\n")
        dag = DAG.format(dag_id=name, helper=f"code_of_{name}")
        (folder / f"{name}.py").write_text(f"# Version {code} of this file.\n{dag}")

    def commit(self, code: str) -> None:
        """As edit, and commit it."""
        self.edit(self.repository, "committed", code)
        self._git("add", "-A")
        self._git("-c", "user.name=test", "-c", "user.email=test@example.com", "commit", "-q", "-m", code)

    def env(self, dags: Path) -> dict[str, str]:
        """Airflow's configuration with these bundles and the one in ``dags``, for every process of the Airflow host."""
        quick = {"refresh_interval": 1}
        bundles = [
            {"name": BUNDLE, "classpath": LOCAL_BUNDLE, "kwargs": {"path": str(dags)}},
            {"name": SHIPPED, "classpath": VOLUME_BUNDLE, "kwargs": {"path": str(self.shipped), **quick}},
        ]
        if HAS_GIT:
            kwargs = {"tracking_ref": "main", "git_conn_id": "dags_repository", **quick}
            bundles.append(
                {"name": GIT, "classpath": "airflow.providers.git.bundles.git.GitDagBundle", "kwargs": kwargs}
            )
        return {
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps(bundles),
            "AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_STORAGE_PATH": str(self.root / "bundles-of-airflow"),
            "AIRFLOW__DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": "1",
            VARIABLE: str(self.root),
            # On the Airflow host alone: a task has to ask Airflow's API for it.
            "AIRFLOW_CONN_DAGS_REPOSITORY": json.dumps({"conn_type": "git", "host": self.url}),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "True",
            # The files of the bundle that all tests use never change, so that a first attempt must not run out of time.
            PARSE_INTERVAL: "3600",
            "AIRFLOW__DAG_PROCESSOR__DAG_FILE_PROCESSOR_TIMEOUT": "240",
            "AIRFLOW__CORE__DAGBAG_IMPORT_TIMEOUT": "200",
        }

    @contextmanager
    def parsed(self, stack: ModalStack) -> Iterator[None]:
        """Have a DAG processor of its own look for edits, and parse files as often as Airflow does by default."""
        command = _dag_processor(SHIPPED, *([GIT] if HAS_GIT else []))
        program = stack.airflow.program("dag-processor-of-sources", *command)
        program.env = {name: value for name, value in program.env.items() if name != PARSE_INTERVAL}
        programs = stack.airflow.programs
        programs[program.name] = program
        program.start()
        try:
            yield
        finally:
            programs.pop(program.name).stop()

    def ship(self, stack: ModalStack) -> None:
        """Have the bundle shipped, unless an earlier test did."""
        if not stack.airflow.api.dag_is_known("pinned"):
            with self.parsed(stack):
                stack.airflow.wait_for_dag("pinned")

    def _git(self, *command: str) -> None:
        subprocess.run(["git", "-C", str(self.repository), *command], check=True, capture_output=True)


def _dag_processor(*bundles: str) -> Sequence[str]:
    return ("dag-processor", *(word for name in bundles for word in ("--bundle-name", name)))


#: Airflow's processes, of which none parses all the examples that there are.
PROCESSES: Mapping[str, Sequence[str]] = {**SEPARATE, "dag-processor": _dag_processor(BUNDLE)}


def parse(stack: ModalStack, files: Mapping[str, str]) -> None:
    """Have one file of each of some bundles parsed that the DAG processor leaves alone: bundle → file."""
    command = [sys.executable, "-c", PARSE, *(f"{bundle}={file}" for bundle, file in files.items())]
    done = subprocess.run(command, env=dict(stack.airflow.env), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
