"""Plugins, local settings and modules of an Airflow host, in tasks in real containers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from modalflow.airflow_home.host_home import HostHome
from modalflow.airflow_home.store import HomeStore
from modalflow.bundles.files import VolumeFiles
from modalflow.protocol.messages import Entry, State
from tests.command_line import CommandLine
from tests.inside import zygotes_in
from tests.integration.world import Work, World, deployed_worker

#: As the operator of a host has them.
ACME = {
    "plugins/acme_ops.py": """
from airflow.sdk import BaseOperator
ORIGIN = "host"
class Shout(BaseOperator):
    def execute(self, context):
        return "SHOUT"
""",
    "plugins/acme_plugin.py": """
import acme_listener
from airflow.plugins_manager import AirflowPlugin
def acme_double(x):
    return 2 * x
class AcmePlugin(AirflowPlugin):
    name = "acme"
    macros = [acme_double]
    listeners = [acme_listener]
""",
    "plugins/acme_listener.py": """
from airflow.listeners import hookimpl
@hookimpl
def on_task_instance_running(previous_state, task_instance):
    print("listener saw", task_instance.task_id)
""",
    "config/airflow_local_settings.py": """
from datetime import timedelta
def task_policy(task):
    if task.task_id == "slow":
        task.execution_timeout = timedelta(seconds=1)
""",
    "modules/acme_xcom.py": """
import json
from acme_codec import PREFIX
from airflow.sdk.bases.xcom import BaseXCom
class FileXCom(BaseXCom):
    @staticmethod
    def serialize_value(value, **kwargs):
        return PREFIX + json.dumps(value)
""",
    "modules/acme_codec.py": "PREFIX = 'file://'\n",
}
XCOM = {"core": {"xcom_backend": "acme_xcom.FileXCom"}}


@pytest.fixture(scope="module")
def world(modalflow_cli: CommandLine) -> Iterator[World]:
    with deployed_worker(modalflow_cli, "home-files") as world:
        yield world


def publish(world: World, files: Mapping[str, str], settings: Mapping[str, Mapping[str, str]] | None = None) -> str:
    """Publish a home as an executor does, and return its id."""
    home = HostHome(settings or {}, contents={path: text.encode() for path, text in files.items()})
    snapshot = home.snapshot("")
    HomeStore(VolumeFiles(world.logs.volume)).publish(snapshot, home.contents)
    return snapshot.id


def task(world: World, task_id: str, home: str, **changes: Any) -> Work:
    return world.task(task_id, home=home, **{"dag_file": "host_files.py"} | changes)


def lines(work: Work) -> list[str]:
    return [json.loads(line)["event"] for line in work.log().splitlines()]


def succeeded(work: Work) -> Entry:
    entry = work.ended()
    assert entry.final_state == "success", work.log()
    return entry


def test_macros_operators_listeners_policies_and_an_xcom_backend_work(world: World) -> None:
    """All that the host's files define holds in tasks, which fork from one zygote that has imported it."""
    home = publish(world, ACME, XCOM)
    macro, operator, slow, xcom = (task(world, name, home) for name in ("macro", "operator", "slow", "writes_xcom"))
    containers = {succeeded(work).container_id for work in (macro, operator, xcom)}
    assert "doubled 42" in lines(macro) and "listener saw macro" in lines(macro)
    assert "SHOUT" in lines(operator)
    assert slow.ended().final_state in {"failed", "up_for_retry"} and "policy did not hold" not in slow.log()
    assert "Timeout" in slow.log()
    assert ("POST", "file://[1, 2, 3]") in [
        (method, body) for method, path, body in world.api.requests if "xcoms" in path
    ]
    assert containers


POLICIES = {
    "plugins/acme_timetable.py": """
from airflow.plugins_manager import AirflowPlugin
from airflow.timetables.simple import OnceTimetable
class Once(OnceTimetable):
    pass
def acme_double(x):
    return 2 * x
class AcmePlugin(AirflowPlugin):
    name = "acme"
    macros = [acme_double]
    timetables = [Once]
""",
    "config/airflow_local_settings.py": """
ASKED = []
def get_dagbag_import_timeout(dag_file_path):
    ASKED.append(dag_file_path)
    return 30.0
def dag_policy(dag):
    dag.description = "acme"
def get_airflow_context_vars(context):
    return {"acme_team": context["task"].task_id}
""",
}


def test_policies_timeouts_and_timetables_work(world: World) -> None:
    """Each function of the local settings that Airflow calls in a task's process, and a plugin's timetable and macro.
    Airflow would not import the DAG in the time that the host's option allows."""
    home = publish(world, POLICIES, {"core": {"dagbag_import_timeout": "0.2"}})
    policies, macro = (task(world, name, home, dag_file="host_policies.py") for name in ("policies", "macro"))
    succeeded(policies)
    assert {
        "asked for the timeout of host_policies.py",
        "timetable Once described by acme",
        "variables policies",
    } <= set(lines(policies))
    succeeded(macro)
    assert "42" in lines(macro)


def test_without_the_host_s_timeout_an_import_is_ended(world: World) -> None:
    """The option alone ends the import of the same DAG: the test above shows the function."""
    policies = POLICIES | {"config/airflow_local_settings.py": "ASKED = []"}
    settings = {"core": {"dagbag_import_timeout": "0.2"}, "workers": {"missing_dag_retries": "0"}}
    work = task(world, "policies", publish(world, policies, settings), dag_file="host_policies.py")
    assert work.ended().final_state != "success"
    assert "DagBag import timeout" in work.log()


STATE = """
import os, threading
from airflow.plugins_manager import AirflowPlugin
SEEN = []
GREETING = os.environ.get("ACME_GREETING")
STARTED = []
def running():
    return [thread.is_alive() for thread in STARTED]
class State(AirflowPlugin):
    name = "state"
"""

THREAD = """
thread = threading.Thread(target=threading.Event().wait, args=(600,), daemon=True)
thread.start()
STARTED.append(thread)
"""


def test_the_state_of_a_plugin_does_not_reach_another_task(world: World) -> None:
    """Each task has the plugin as it was after its import, in the same zygote."""
    home = publish(world, {"plugins/acme_state.py": STATE})
    for _ in range(2):
        work = task(world, "state", home)
        container = succeeded(work).container_id
        assert "seen 1 threads [] reads None" in lines(work)
    assert zygotes_in(container)


def test_a_thread_that_a_plugin_starts_runs_in_each_task(world: World) -> None:
    """A fork of a process with the thread would not have it, so each task imports such plugins for itself."""
    work = task(world, "state", publish(world, {"plugins/acme_state.py": STATE + THREAD}))
    succeeded(work)
    assert "seen 1 threads [True] reads None" in lines(work)


def test_a_plugin_that_reads_an_airflow_variable_gets_it_from_the_api(world: World) -> None:
    """Only a task can ask Airflow's API, so each task imports such plugins for itself."""
    plugin = STATE + "from airflow.sdk import Variable\nGREETING = Variable.get('greeting', default='a default')\n"
    world.api.variables["greeting"] = "from the API"
    work = task(world, "state", publish(world, {"plugins/acme_state.py": plugin}))
    succeeded(work)
    assert "seen 1 threads [] reads from the API" in lines(work)


def test_code_of_the_host_sees_the_variables_of_the_workload(world: World) -> None:
    """A plugin that reads a variable at its import reads the value that a task has, whichever zygote is there."""
    home = publish(world, {"plugins/acme_state.py": STATE})
    greetings = ("hello", None, "hello", "good morning")
    works = [task(world, "state", home, env={"ACME_GREETING": each} if each else {}) for each in greetings]
    for work, greeting in zip(works, greetings, strict=True):
        succeeded(work)
        assert f"seen 1 threads [] reads {greeting}" in lines(work)


def test_a_plugin_that_raises_is_reported_and_the_task_runs(world: World) -> None:
    """As under LocalExecutor. The log of each task names the file and the error, and how to fix it."""
    broken = {
        "plugins/broken.py": "import acme_not_here",
        "plugins/divides.py": "1 / 0",
    }
    work = task(world, "macro", publish(world, ACME | broken))
    succeeded(work)
    assert "doubled 42" in lines(work)
    notes = [line for line in lines(work) if "could not be loaded in the container" in line]
    assert any("plugins/broken.py" in note and "No module named 'acme_not_here'" in note for note in notes)
    assert any("plugins/divides.py" in note and "modalflow deploy" in note for note in notes)


@pytest.mark.parametrize(
    ("files", "settings", "expected"),
    [
        ({}, {"core": {"xcom_backend": "nowhere.X"}}, ['"xcom_backend" key in "core"', '"nowhere.X"']),
        ({}, {"workers": {"secrets_backend": "nowhere.Y"}}, ['"secrets_backend" key in "workers"', '"nowhere.Y"']),
        ({}, {"core": {"parallelism": "many"}}, ['"PARALLELISM" key in "core"', '"many"']),
        ({}, {"logging": {"logging_level": "LOUD"}}, ["logging_level", "LOUD"]),
        ({}, {"core": {"default_task_weight_rule": "sideways"}}, ["default_task_weight_rule", "sideways"]),
        ({}, {"logging": {"secret_mask_adapter": "nowhere.mask"}}, ["secret_mask_adapter", "nowhere.mask"]),
        ({}, {"metrics": {"stat_name_handler": "nowhere.f", "statsd_on": "True"}}, ["stat_name_handler", "nowhere.f"]),
        (
            {},
            {"logging": {"logging_config_class": "nowhere.LOGGING"}},
            ["nowhere.LOGGING", "No module named 'nowhere'"],
        ),
        ({"config/airflow_local_settings.py": "\n1 / 0"}, {}, ["config/airflow_local_settings.py, line 2", "ZeroDiv"]),
        ({"config/airflow_local_settings.py": "import sys; sys.exit('no')"}, {}, ["line 1", "SystemExit: no"]),
        ({"config/airflow_local_settings.py": "import acme_no"}, {}, ["line 1", "No module named 'acme_no'"]),
        ({"config/airflow_local_settings.py": "def ("}, {}, ["airflow_local_settings.py, line 1", "SyntaxError"]),
    ],
)
def test_what_airflow_cannot_import_fails_the_task_before_its_code_runs(
    world: World, files: dict[str, str], settings: dict[str, dict[str, str]], expected: list[str]
) -> None:
    """The reason has the setting or the file, Airflow's own error, and how to fix it. Others' work goes on."""
    home = publish(world, files, settings)
    works = [task(world, "operator", home), task(world, "operator", home)]
    for work in works:
        entry = work.ended()
        assert entry.state is State.FAILED and entry.final_state is None
        for part in [*expected, "modalflow deploy", "restart the scheduler"]:
            assert part in (entry.reason or "")
        assert "SHOUT" not in work.log()
    good = task(world, "operator", publish(world, ACME))
    succeeded(good)
    assert len({work.ended().container_id for work in [*works, good]}) == 1, "the container lives on"


def test_a_plugin_that_ends_its_process_harms_no_other_work(world: World) -> None:
    """Each task that needs it fails with the exit code, and the container runs other work."""
    work = task(world, "operator", publish(world, {"plugins/exits.py": "import os\nos._exit(3)"}))
    entry = work.ended()
    assert entry.state is State.FAILED and "exit code 3" in (entry.reason or "")
    assert world.command("true").ended().container_id == entry.container_id


def test_an_image_keeps_its_own_home(world: World, tmp_path: Path) -> None:
    """Its plugins and configuration win over the host's, and its other files are there."""
    home = tmp_path / "home"
    for path, text in {
        "plugins/acme_ops.py": "ORIGIN = 'image'",
        "include/query.sql": "select 1",
        "airflow.cfg": "[core]\nxcom_backend = airflow.sdk.bases.xcom.BaseXCom\n",
    }.items():
        file = home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    file = tmp_path / "worker.py"
    file.write_text(
        "import modal, modalflow\n"
        "image = modal.Image.debian_slim().env({'AIRFLOW_HOME': '/opt/airflow'})"
        f".add_local_dir({str(home)!r}, '/opt/airflow', copy=True)\n"
        "worker = modalflow.Worker(profiles=[modalflow.Profile('default', image=image)])\n"
    )
    own = world.deploy(str(file), "--app", "own-home")
    for published in ("", publish(own, ACME, {"core": {"xcom_backend": "nowhere.X"}})):
        work = task(own, "home", published)
        succeeded(work)
        assert "sql select 1 image" in lines(work)
    macro = task(own, "macro", published)
    succeeded(macro)
    assert "doubled 42" in lines(macro), "the host's other plugins are there too"
