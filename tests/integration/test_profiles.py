"""Several profiles in one deployment: which one a task gets, what it finds there, what a redeployment leaves alone."""

from __future__ import annotations

import base64
import io
import json
import re
import socket
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import modal
import pytest
from click.testing import CliRunner, Result

import modalflow
from modalflow import control_plane
from modalflow.cli.deploy import deploy as deploy_command
from modalflow.emulator.local import LocalModal
from modalflow.names import Names
from modalflow.worker.deploy.deployment import deploy
from modalflow.worker.deploy.images import build_log
from tests.driving import PATIENCE, Driver
from tests.sdk import client_of, needs_sdk
from tests.wheels import make_wheel

NAMES = Names("profiles")

CERT = '-----BEGIN X-----\nit\'s "AAA" $HOME \\\n-----END X-----\n'
ODD = '\n\'"$HOME" ${X:-1} $(x) `x` # \\\\ \\\r\n\t\u00e4\u2028\U0001f600\x7f%s %% \\'
QUOTED = 'it\'s "x" $HOME ${X} # \u00e4 \\'
ACCOUNT = json.dumps({"a": ["\u00e4", "\U0001f600 # $X"]}, indent=2, ensure_ascii=False)


def worker(*more: modalflow.Profile) -> modalflow.Worker:
    """The profile `default`, and another one with everything that it can have."""
    etl = modalflow.Profile(
        "etl",
        image=modal.Image.debian_slim().env({"FROM_ITS_IMAGE": "own", "IN_IMAGE": QUOTED}),
        cpu=0.5,
        memory="256MiB",
        secrets=[modal.Secret.from_name("warehouse")],
        volumes={"/models": modal.Volume.from_name("models"), "/vol/": modal.Volume.from_name("data")},
        env={"B": "profile", "C": "profile", "D": "profile", "ACCOUNT": ACCOUNT, "IN_PROFILE": ODD},
        concurrency=2,
        preload=["colorsys"],
        # Nothing is snapshotted here, and everything works as without.
        memory_snapshot=True,
    )
    return modalflow.Worker(
        profiles=[etl, *more],
        env={"D": "deployment", "E": "deployment", "CERT": CERT, "IN_WORKER": ODD},
    )


@pytest.fixture(scope="module")
def local() -> Iterator[LocalModal]:
    with LocalModal() as running, pytest.MonkeyPatch.context() as environment:
        variables = running.env | {
            "AIRFLOW_CONN_MODAL_DEFAULT": "modal://",
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": "http://127.0.0.1:8080/execution/",
            "AIRFLOW__MODAL_EXECUTOR__EXECUTION_API": "direct",
            "AIRFLOW__MODAL_EXECUTOR__APP_NAME": NAMES.app,
            "AIRFLOW__MODAL_EXECUTOR__SWEEP_INTERVAL": "0.3",
            "AIRFLOW__MODAL_EXECUTOR__MAX_OPTION_SETS": "4",
            "AIRFLOW__MODAL_EXECUTOR__WORKER_ENV": json.dumps(
                {**dict.fromkeys("ABCDE", "settings"), "IN_SETTINGS": ODD}
            ).replace("$", "\\u0024"),
        }
        for name, value in variables.items():
            environment.setenv(name, value)
        environment.setattr(control_plane, "_known", {})
        with client_of(running.url, running.env) as client:
            for name in ("warehouse", "other"):
                modal.Secret.objects.create(name, {"PASSWORD_OF": name, "IN_SECRET": ODD}, client=client)
            for name in ("models", "results", "data"):
                volume = modal.Volume.from_name(name, create_if_missing=True, client=client)
                with volume.batch_upload() as batch:
                    batch.put_file(io.BytesIO(name.encode()), "/name")
        deploy(NAMES, bundles={}, worker=worker())
        yield running


@pytest.fixture
def driver(local: LocalModal) -> Iterator[Driver]:
    driver = Driver.started()
    yield driver
    driver.executor.end()


def told(driver: Driver, what: str, queue: str | None = None, **config: Any) -> str:
    """What a command prints on the profile of a queue, with these options of its own."""
    key = driver.submit("told", f'echo "({what})"', queue=queue, **config)
    state, info = driver.outcome(key)
    assert state == "success", info
    said = [str(json.loads(line).get("event")) for line in driver.log(key).splitlines()]
    [line] = [event for event in said if event.startswith("(")]
    return line


def test_the_queue_picks_the_profile(driver: Driver) -> None:
    """Its image, its Secret and its Volume are there; on `default` they are not."""
    look = "$FROM_ITS_IMAGE $PASSWORD_OF $(cat /models/name 2>/dev/null) $MODALFLOW_PROFILE"
    etl = told(driver, look, queue="etl")
    assert "(own warehouse models " in etl
    granted = json.loads(etl[etl.index("{") : etl.index("}") + 1])
    assert granted == {"profile": "etl", "cpu": 0.5, "memory": 256, "concurrency": 2, "timeout": 86400}
    assert "(   {" in told(driver, look)


def test_variables_of_task_profile_deployment_and_settings(driver: Driver) -> None:
    """The nearer one counts: the task's own, its profile's, the deployment's, then `worker_env`."""
    line = told(driver, "$A $B $C $D $E", queue="etl", env={"A": "task", "B": "task"})
    assert "(task task profile profile deployment)" in line
    assert "(settings settings settings deployment deployment)" in told(driver, "$A $B $C $D $E")


@pytest.mark.parametrize("secrets", [[], ["other"]], ids=["the profile's Secrets", "Secrets of its own"])
def test_values_arrive_as_they_were(driver: Driver, secrets: list[str]) -> None:
    """With line breaks, quotes, dollars, hashes, backslashes and other scripts, whichever way they take."""
    odd = dict.fromkeys(("IN_WORKER", "IN_PROFILE", "IN_SETTINGS", "IN_SECRET", "IN_TASK"), ODD)
    sent = {"CERT": CERT, "ACCOUNT": ACCOUNT, "IN_IMAGE": QUOTED, **odd}
    look = " ".join(f'$(printf %s "${name}" | base64 -w0)' for name in sent)
    expected = " ".join(base64.b64encode(text.encode()).decode() for text in sent.values())
    options: dict[str, Any] = {"secrets": secrets} if secrets else {}
    line = told(driver, f"{look} $MODALFLOW_PACKED_ENV", queue="etl", env={"IN_TASK": ODD}, **options)
    assert line == f"({expected} )"


def test_a_task_may_have_other_secrets_and_volumes(driver: Driver) -> None:
    """Named in its executor_config, they are there instead of the profile's; its log is where all logs are."""
    line = told(driver, "$PASSWORD_OF $(cat /out/name)", queue="etl", secrets=["other"], volumes={"/out": "results"})
    assert "(other results)" in line


@pytest.mark.parametrize("config", [{}, {"volumes": {"/vol": "results"}}])
def test_a_volume_at_vol_is_the_users_alone(driver: Driver, config: dict[str, Any]) -> None:
    """What a task writes there, into a folder `logs` too, is in that Volume, and nothing of modalflow's is."""
    name = "results" if config else "data"
    write = "mkdir -p /vol/logs; echo x > /vol/logs/train.txt"
    look = "find -L /vol -type f | sort | xargs; find -L /opt/modalflow -name train.txt"
    assert told(driver, f"$({write}) $(cat /vol/name) $({look})", queue="etl", **config) == (
        f"( {name} /vol/logs/train.txt /vol/name)"
    )


def test_a_task_sizes_itself_from_its_last_runs(driver: Driver) -> None:
    """The first run has what its profile has. Another scheduler gives the next one what the first has used, with a
    margin, and its log begins with that."""
    eat = f"{sys.executable} -c 'x = bytearray(300 << 20)'"
    key = driver.submit("sized", eat, memory="auto")
    assert driver.outcome(key)[0] == "success"
    assert "profile default, on a local" in driver.log(key)
    other = Driver.started()
    try:
        again = other.submit("sized", eat, memory="auto")
        assert other.outcome(again)[0] == "success"
        found = re.search(r"profile default: (\d+) MiB, from 1 run, on a local", other.log(again))
        assert found and int(found[1]) in (384, 512, 768)
    finally:
        other.executor.end()


@pytest.mark.parametrize("options", [{"secrets": ["no-such-one"]}, {"volumes": {"/data": "no-such-one"}}], ids=str)
def test_something_that_modal_does_not_have(driver: Driver, options: dict[str, Any]) -> None:
    """The reason names what the task asks for, one environment, and one way to fix it."""
    key = driver.submit("missing", ["true"], **options)
    reason = driver.told(key, "Modal does not have an object of this task", "'no-such-one' not found in environment")
    assert reason.lower().count("environment") == 1 and "'default'" not in reason
    assert reason.endswith("Create it, or change the task's executor_config.") and reason.count("executor_config") == 1


def test_a_queue_without_a_profile_is_turned_away(driver: Driver) -> None:
    """With the profiles that there are, in the task's log, Airflow's event log and the executor's event."""
    driver.told(driver.submit("queue", ["true"], queue="gpus"), "Queue 'gpus' has no profile", "default, etl")


def test_too_many_sets_of_options_are_turned_away(driver: Driver) -> None:
    """Computed options would be a cold pool for every task."""
    keys = [driver.submit("sets", ["true"], timeout=100 + n) for n in range(5)]
    assert [driver.outcome(key)[0] for key in keys[:4]] == ["success"] * 4
    driver.told(keys[4], "max_option_sets = 4", "timeout=104")


def test_a_new_profile_needs_no_restart_and_work_in_flight_ends_as_it_began(
    driver: Driver,
) -> None:
    """Redeployed while a command runs on one profile and one on a profile that is gone then: both end as they would
    have. A task of a profile that the scheduler has not heard of runs at once."""
    deploy(NAMES, bundles={}, worker=worker(modalflow.Profile("leaving")))
    with socket.create_server(("127.0.0.1", 0)) as gate:
        gate.settimeout(PATIENCE)
        wait = f"import socket; socket.create_connection({gate.getsockname()!r}).recv(1)"
        keys = [driver.submit("flight", [sys.executable, "-c", wait], queue=queue) for queue in ("default", "leaving")]
        driver.beat()
        waiting = [gate.accept()[0] for _ in keys]
        changed = modalflow.Worker(
            profiles=[modalflow.Profile(timeout=4000), modalflow.Profile("late")], env={"E": "2"}
        )
        deploy(NAMES, bundles={}, worker=changed)
        assert "(2)" in told(driver, "$E", queue="late")
        for each in waiting:
            each.close()
    assert [driver.outcome(key)[0] for key in keys] == ["success", "success"]
    driver.told(driver.submit("gone", ["true"], queue="leaving"), "Queue 'leaving' has no profile")
    deploy(NAMES, bundles={}, worker=worker())


FILE = """
import modalflow
worker = modalflow.Worker(
    app="from-file",
    requirements=REQUIREMENTS,
    profiles=[modalflow.Profile("gpu", gpu="GPU", timeout=600)],
)
"""


OWN_IMAGE = """
import modal, modalflow
image = modal.Image.debian_slim().add_local_dir("WHEELS", "/wheels", copy=True)
image = image.uv_pip_install("tabulate==99.0", find_links="/wheels", extra_options="--no-index")
worker = modalflow.Worker(app="from-file", profiles=[modalflow.Profile("own", image=image)])
"""


class TestFile:
    """`modalflow deploy FILE`."""

    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        file = tmp_path / "worker.py"
        file.write_text(FILE.replace("REQUIREMENTS", "None").replace("GPU", "T4"))
        return file

    @pytest.fixture(autouse=True)
    def without_dags(self, tmp_path: Path) -> None:
        self.none = tmp_path / "none"
        self.none.mkdir()

    def run(self, *arguments: object) -> Result:
        return CliRunner().invoke(deploy_command, [*map(str, arguments), "--dags-bundle", f"none={self.none}"])

    def test_a_dry_run_shows_and_a_deployment_does(self, local: LocalModal, file: Path) -> None:
        """First everything is new, and nothing is deployed by looking; then only what was edited changes."""
        shown = self.run(file, "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert "+ profile gpu: gpu=T4, timeout=600, concurrency=1" in shown.output
        assert "Nothing was deployed" in shown.output
        deployed = self.run(file)
        assert deployed.exit_code == 0, deployed.output
        assert "First deployment of from-file" in deployed.output, "the dry run deployed nothing"
        assert "Profiles: default, gpu." in deployed.output
        file.write_text(file.read_text().replace("600", "900"))
        again = json.loads(self.run(file, "--dry-run", "--json").stdout)
        assert again["changes"] == [
            {"kind": "changed", "what": "profile", "name": "gpu", "detail": "timeout 600 → 900"}
        ]
        assert "apache-airflow-core" in again["packages"]

    def test_requirements_that_name_modalflow_are_reported(self, local: LocalModal, file: Path, tmp_path: Path) -> None:
        """The package index has another program of that name, and no image needs it."""
        (tmp_path / "requirements.txt").write_text("modalflow==0.3.1\n")
        file.write_text(FILE.replace("REQUIREMENTS", repr(str(tmp_path / "requirements.txt"))).replace("GPU", "T4"))
        shown = self.run(file, "--dry-run")
        assert shown.exit_code == 0, shown.output
        assert "has 'modalflow==0.3.1', and the package index has another program of that name" in shown.output

    def test_requirements_that_contradict_airflow_are_refused(
        self, local: LocalModal, file: Path, tmp_path: Path
    ) -> None:
        """Before anything is built or even connected to; both versions are named."""
        here = metadata.version("pydantic")
        (tmp_path / "requirements.txt").write_text("pydantic==1.0\npandas==9.9\n")
        file.write_text(FILE.replace("REQUIREMENTS", repr(str(tmp_path / "requirements.txt"))).replace("GPU", "T4"))
        shown = self.run(file, "--dry-run")
        assert shown.exit_code == 1
        assert f"\n  line 1 asks for pydantic ==1.0, the Airflow host has {here}\n" in shown.output
        assert "pandas" not in shown.output

    def test_an_image_that_contradicts_airflow_is_refused(self, local: LocalModal, file: Path, tmp_path: Path) -> None:
        """Before Airflow is installed into it; both versions are named, without a traceback."""
        (tmp_path / "wheels").mkdir()
        make_wheel(tmp_path / "wheels", "tabulate", "99.0")
        file.write_text(OWN_IMAGE.replace("WHEELS", str(tmp_path / "wheels")))
        shown = self.run(file)
        assert shown.exit_code == 1
        here = metadata.version("tabulate")
        assert "the image of profile 'own' contradicts this Airflow host:" in shown.output
        assert f"\n  the image asks for tabulate 99.0, the Airflow host has {here}\n" in shown.output
        assert "Traceback" not in shown.output

    @needs_sdk("1.6")
    def test_the_log_of_a_failed_build_is_in_the_error(self, local: LocalModal) -> None:
        """Modal's exception names a command that shows the log; the user reads its last lines without it."""
        image = modal.Image.debian_slim().pip_install("no-such-package-here", extra_options="--no-index")
        with client_of(local.url, local.env) as client:
            app = modal.App()
            with app.run(client=client), pytest.raises(modal.exception.Error) as raised:
                image.build(app)
            image_id = getattr(raised.value, "image_id")  # noqa: B009  Older SDKs have none.
            error: Any = modal.exception.ImageBuildError(f"Image build for {image_id} failed.", image_id)
            assert "No matching distribution found for no-such-package-here" in build_log(error, client)

    def test_what_is_wrong_is_a_line(self, local: LocalModal, file: Path, tmp_path: Path) -> None:
        """A GPU that nobody knows, a missing file of requirements, an option that the file has to say."""
        file.write_text(FILE.replace("REQUIREMENTS", "None").replace("GPU", "H10"))
        unknown = self.run(file)
        assert unknown.exit_code == 1
        assert "Profile 'gpu': GPU 'H10'" in unknown.output and "--any-gpu" in unknown.output
        file.write_text(FILE.replace("REQUIREMENTS", "'/no/such/file'").replace("GPU", "T4"))
        assert "/no/such/file does not exist" in self.run(file).output
        both = self.run(file, "--timeout", "60")
        assert both.exit_code == 2 and "--timeout cannot be combined with FILE" in both.output

    def test_the_packages_are_shown_before_anything_is_built(self, local: LocalModal) -> None:
        """`--mirror` lists them all; without, the image has Airflow and its providers alone."""
        shown = self.run("--mirror", "--dry-run")
        assert f"modal=={modal.__version__}" in shown.output and "apache-airflow-core==" in shown.output
        few = json.loads(self.run("--no-mirror", "--dry-run", "--json").stdout)
        assert few["packages"] and all(name.startswith("apache-airflow") for name in few["packages"])
