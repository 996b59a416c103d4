"""`modalflow doctor` against a deployed worker: all is well, and each thing that can be wrong, one by one."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import modal
import pytest

from modalflow import __version__, control_plane
from modalflow.airflow_compat.tokens import settings_to_compare
from modalflow.bundles.configured import LOCAL_BUNDLE
from modalflow.logs.log_volume import LogVolume
from modalflow.names import Names
from modalflow.protocol.snapshot import InFlight, Snapshot
from modalflow.worker.environment import BUNDLE_LIST
from tests.integration.clinic import DAGS, JWT_SECRET, TOKEN, Clinic, open_clinic
from tests.sdk import client_of


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with open_clinic(tmp_path_factory.mktemp("airflow")) as clinic:
        yield clinic


def test_all_is_well(clinic: Clinic) -> None:
    """With everything in order every line is ok, with times of the round trips, and a container was really asked."""
    findings = clinic.examine()
    # There is no scheduler in this test.
    assert [name for name, finding in findings.items() if finding["status"] != "ok"] == ["executors"]
    for name in ("credentials", "ledger", "events", "logs", "container (default)", "execution API"):
        assert findings[name]["seconds"] > 0, name
    container = findings["hostname"]["detail"].split()[-1]
    assert container.startswith("ta-") and container in findings["container (default)"]["detail"]
    assert ("GET", "/execution/health", None) in clinic.api.requests
    files = len(list(DAGS.glob("*.py")))
    assert findings["DAG bundle tests"]["detail"].startswith(f"{files} Python files in /opt/modalflow/bundles/tests")
    with client_of(clinic.local.url, clinic.local.env) as client:
        assert modal.Dict.from_name(Names("patient").ledger, client=client).len() == 0


def test_it_reads_well_and_says_how_many_failed(clinic: Clinic) -> None:
    """For a human: a line each, what mends it below, and a sum at the end."""
    done = clinic.command.run("doctor", env={"AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOT": "5"})
    assert done.returncode == 1
    imported, first, mend, *rest = done.stdout.splitlines()
    assert imported.startswith("ok    modalflow")
    assert first.startswith("fail  options") and "did you mean 'task_timeout'?" in first
    assert "→ Fix [modal_executor] task_timeot" in mend
    assert rest[-1].endswith("checks: 1 failed, 1 skipped.")


def test_mistakes_in_the_options(clinic: Clinic) -> None:
    """A wrong value is named; variables, which may be secrets, are not shown."""
    failed = clinic.failures(AIRFLOW__MODAL_EXECUTOR__WORKER_ENV=f"TOKEN={TOKEN}")
    assert "worker_env is malformed; expected a JSON object" in failed["options"]["detail"]
    failed = clinic.failures(AIRFLOW__MODAL_EXECUTOR__TASK_TIMEOUT="1h")
    assert failed["options"]["detail"].startswith("[modal_executor] task_timeout is '1h'")


def test_airflow_that_would_surprise(clinic: Clinic) -> None:
    """Another executor, and a queued timeout too short for a cold start, work and are warned of."""
    findings = clinic.examine(AIRFLOW__CORE__EXECUTOR="LocalExecutor", AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT="60")
    assert [findings[name]["status"] for name in ("executor", "queued timeout")] == ["warn", "warn"]


def test_refused_credentials(clinic: Clinic) -> None:
    """A token that Modal refuses; what needs Modal is skipped, not failed."""
    findings = clinic.examine(AIRFLOW_CONN_MODAL_DEFAULT=f"modal://ak-wrong:{TOKEN}@")
    assert findings["credentials"]["status"] == "fail"
    assert "'modal_default'" in findings["credentials"]["detail"]
    assert {findings[name]["status"] for name in ("worker app", "container", "DAG bundles")} == {"skip"}


def test_modal_that_does_not_answer(clinic: Clinic) -> None:
    """The address is named, and the doctor ends in time."""
    failed = clinic.failures(MODAL_SERVER_URL="http://127.0.0.1:1", AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT="1")
    assert failed["control plane"]["detail"] == "Modal at http://127.0.0.1:1 did not answer within 1 s."
    assert "`modalflow local status`" in failed["control plane"]["mend"]


def test_a_profile_that_is_not_deployed(clinic: Clinic) -> None:
    """A mistyped --profile is named as such, beside the profiles that there are."""
    failed = clinic.failures("--profile", "gpuu")
    assert list(failed) == ["container (gpuu)"]
    assert "profile 'gpuu' is not deployed; deployed profiles: default" in failed["container (gpuu)"]["detail"]


def test_loopback_address_with_modal_itself(clinic: Clinic) -> None:
    """Without the relay, containers on Modal cannot reach this machine's loopback: found before Modal is asked."""
    failed = clinic.failures(
        MODAL_SERVER_URL="http://modal.invalid",
        AIRFLOW__MODAL_EXECUTOR__CONNECT_TIMEOUT="1",
        AIRFLOW__MODAL_EXECUTOR__EXECUTION_API="direct",
    )
    assert "loopback address is the container itself" in failed["execution API address"]["detail"]


def test_environment_that_does_not_exist(clinic: Clinic) -> None:
    """The environments that there are are named."""
    failed = clinic.failures("--environment", "staging")
    assert "'staging'; existing ones: main" in failed["environment"]["detail"]


def test_a_queue_that_goes_to_no_profile(clinic: Clinic) -> None:
    """The option that sends it there is named, with the profiles that there are."""
    failed = clinic.failures(AIRFLOW__MODAL_EXECUTOR__QUEUES='{"big": "gpu", "small": "default"}')
    assert "big → gpu; deployed: default" in failed["queues"]["detail"]


def test_app_that_is_not_deployed(clinic: Clinic) -> None:
    """The command that deploys it is the way to mend it."""
    failed = clinic.failures("--app", "nobody")
    assert list(failed) == ["worker app"]
    assert "`modalflow deploy --app nobody`" in failed["worker app"]["mend"]


@pytest.mark.parametrize(
    ("changed", "name"),
    [({"protocol": 999, "version": "9.9"}, "worker version"), ({"airflow_version": "3.1.8"}, "Airflow versions")],
)
def test_worker_of_another_version(clinic: Clinic, changed: dict[str, Any], name: str) -> None:
    """Another protocol, another Airflow: found from the record of the deployment."""
    with client_of(clinic.local.url, clinic.local.env) as client:
        volume = LogVolume(control_plane.ControlPlane(client, None), Names("patient"))
        record = volume.deployment()
        assert record is not None
        volume.record(dataclasses.replace(record, **changed))
        try:
            failed = clinic.failures()
        finally:
            volume.record(record)
    assert list(failed) == [name]
    assert "`modalflow deploy --app patient`" in failed[name]["mend"]


def test_worker_that_knows_no_probes(clinic: Clinic) -> None:
    """A worker of before answers in its own way; what it said is told, and nothing of it stays in the ledger."""
    old = modal.App("old", include_source=False)

    @old.function(name="run-default", serialized=True)
    def run(submission: dict[str, Any]) -> dict[str, Any]:
        return {"state": "failed", "reason": "A submission is malformed: 'probe' is not a valid Kind"}

    with client_of(clinic.local.url, clinic.local.env) as client:
        old.deploy(client=client)
        for kind, name in ((modal.Dict, "old-ledger"), (modal.Queue, "old-events")):
            kind.from_name(name, create_if_missing=True, client=client).hydrate()
    failed = clinic.failures("--app", "old")
    assert list(failed) == ["container (default)"]
    assert "cannot answer" in failed["container (default)"]["detail"]


@pytest.mark.parametrize(
    ("url", "detail", "mend"),
    [
        ("http://127.0.0.1:1/execution/", "Connection refused", "check that the API server is up"),
        ("http://user:as-very-secret@airflow.invalid/execution/", "cannot reach http://airflow.invalid", "public name"),
        ("{root}/nothing/", "answers the container with 404", "/execution/ at its end"),
    ],
)
def test_execution_api_out_of_reach_of_the_container(clinic: Clinic, url: str, detail: str, mend: str) -> None:
    """What the container meets there is told, with what that means; a password in the URL is not."""
    root = clinic.api.url.removesuffix("/execution/")
    failed = clinic.failures(AIRFLOW__CORE__EXECUTION_API_SERVER_URL=url.format(root=root))
    assert list(failed) == ["execution API"]
    assert detail in failed["execution API"]["detail"]
    assert mend in failed["execution API"]["mend"]


TOKEN_CHECKS = {"task token", "task token in the container"}


def test_a_token_that_the_api_server_accepts(clinic: Clinic) -> None:
    """A real one is tried, from here and from the container, for a task instance that does not exist."""
    clinic.api.requests.clear()
    findings = clinic.examine()
    for name in TOKEN_CHECKS:
        assert findings[name]["status"] == "ok" and findings[name]["seconds"] > 0
        assert "AIRFLOW__API_AUTH__JWT_SECRET" in findings[name]["detail"]
    tried = [(path, body["state"]) for _, path, body in clinic.api.requests if path.endswith("/run")]
    assert len(tried) == len(TOKEN_CHECKS) and len(set(tried)) == 1
    # Nothing else was asked of it that could change anything.
    assert {method for method, path, _ in clinic.api.requests if not path.endswith("/run")} == {"GET"}


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"AIRFLOW__API_AUTH__JWT_SECRET": f"{TOKEN}-{'1' * 64}"}, "Invalid auth token"),
        ({"AIRFLOW__EXECUTION_API__JWT_AUDIENCE": "somebody else"}, "Invalid auth token"),
        ({"AIRFLOW__API_AUTH__JWT_ALGORITHM": "HS256"}, "Invalid auth token"),
    ],
)
def test_a_token_that_the_api_server_refuses(clinic: Clinic, variables: dict[str, str], said: str) -> None:
    """With other settings than the API server's both checks fail, and say what to compare, and where this machine's
    key is set."""
    failed = clinic.failures(**variables)
    assert set(failed) == TOKEN_CHECKS
    for finding in failed.values():
        assert said in finding["detail"] and "the variable AIRFLOW__API_AUTH__JWT_SECRET" in finding["detail"]
        assert "[api_auth] jwt_secret" in finding["mend"] and "[execution_api] jwt_audience" in finding["mend"]


def test_no_token_can_be_signed(clinic: Clinic) -> None:
    """A machine without the key says where to run the doctor, and nothing is tried."""
    finding = clinic.examine(AIRFLOW__API_AUTH__JWT_SECRET="")["task token"]
    assert finding["status"] == "warn" and "jwt_secret must be set" in finding["detail"]
    assert "scheduler's environment" in finding["mend"]
    finding = clinic.examine(AIRFLOW__API_AUTH__JWT_PRIVATE_KEY_PATH="/not/there.pem")["task token"]
    assert finding["status"] == "warn" and "/not/there.pem" in finding["detail"]


@pytest.mark.parametrize(
    ("ahead", "mend"),
    [(-3600.0, "synchronize both with NTP"), (3600.0, "synchronize the clocks of the scheduler")],
    ids=["late", "early"],
)
def test_an_api_server_with_another_time(clinic: Clinic, ahead: float, mend: str) -> None:
    """Clocks that differ are found as that, and not as different secrets."""
    clinic.api.clock = ahead
    try:
        failed = clinic.failures()
    finally:
        clinic.api.clock = 0.0
    assert set(failed) == TOKEN_CHECKS | {"API server's clock"}
    assert "3600 s" in failed["API server's clock"]["detail"] or "3599 s" in failed["API server's clock"]["detail"]
    for name in TOKEN_CHECKS:
        assert mend in failed[name]["mend"], failed[name]


def test_an_api_server_of_another_version(clinic: Clinic) -> None:
    """Tasks and API server may not understand each other."""
    clinic.api.version = "2.11.0"
    try:
        failed = clinic.failures()
    finally:
        clinic.api.version = ""
    assert list(failed) == ["API server"] and "2.11.0" in failed["API server"]["detail"]


def test_a_scheduler_with_other_settings_than_here(clinic: Clinic) -> None:
    """What the executor published is compared: with another secret its tasks' tokens are refused although ours is
    accepted. The secret itself is published nowhere."""
    with pytest.MonkeyPatch.context() as there:
        there.setenv("AIRFLOW__API_AUTH__JWT_SECRET", f"{TOKEN}-{'1' * 64}")
        other = settings_to_compare()
        there.setenv("AIRFLOW__API_AUTH__JWT_SECRET", JWT_SECRET)
        same = settings_to_compare()
    url = {"the URL of the Execution API": clinic.api.url}
    cases: list[tuple[dict[str, str], str, str]] = [
        (same | url, "ok", ""),
        (other | url, "fail", "[api_auth] jwt_secret"),
        (same | {"[execution_api] jwt_audience": "x"}, "fail", "[execution_api] jwt_audience"),
        (
            same | {"the URL of the Execution API": "http://elsewhere/execution/"},
            "warn",
            "the URL of the Execution API",
        ),
        ({}, "skip", "an older modalflow"),
    ]
    told = Snapshot("p", "host", 7, version=__version__, published_at=time.time())
    with client_of(clinic.local.url, clinic.local.env) as client:
        there_ = modal.Dict.from_name(Names("patient").executors, create_if_missing=True, client=client)
        for settings, status, said in cases:
            text = dataclasses.replace(told, settings=settings).to_json()
            assert JWT_SECRET not in text and TOKEN not in text
            there_.put("p", text)
            finding = clinic.examine()["executor's settings"]
            assert finding["status"] == status and said in finding["detail"], finding
        there_.clear()


def test_bundle_that_the_container_cannot_read(clinic: Clinic) -> None:
    """A bundle that was not baked, and one whose class is not in the image, fail each by itself."""
    bundles = [
        {"name": "tests", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}},
        {"name": "new", "classpath": LOCAL_BUNDLE, "kwargs": {"path": "/only/on/the/scheduler"}},
    ]
    failed = clinic.failures(**{BUNDLE_LIST: json.dumps(bundles)})
    assert list(failed) == ["DAG bundle new"]
    assert "/only/on/the/scheduler" in failed["DAG bundle new"]["detail"]
    assert "modalflow deploy" in failed["DAG bundle new"]["mend"]


def test_container_that_does_not_come(clinic: Clinic) -> None:
    """Where no container can start, the doctor says so in time, with what waits."""
    clinic.local.faults.now("kill", function="run-default")
    clinic.local.faults.add("container:crash-start")
    try:
        failed = clinic.failures("--timeout", "1")
    finally:
        clinic.local.faults.clear()
    assert list(failed) == ["container (default)"]


def test_executor_that_is_stuck_is_told(clinic: Clinic) -> None:
    """What is in an executor's way, another version of it, and a wait that Airflow is about to end are warned of."""
    call = InFlight("w", "d.t run r try 1", "submitted", time.time() - 400, "fc-1", "default")
    told = Snapshot("p", "host", 7, version=__version__, published_at=time.time(), calls=(call,))
    stuck = dataclasses.replace(told, obstacle="ResourceExhaustedError: slow down")
    with client_of(clinic.local.url, clinic.local.env) as client:
        there = modal.Dict.from_name(Names("patient").executors, create_if_missing=True, client=client)
        for snapshot, said in (
            (stuck, "Modal accepts no work"),
            (dataclasses.replace(told, version="9"), "modalflow 9"),
        ):
            there.put("p", snapshot.to_json())
            findings = clinic.examine()
            assert findings["executor that runs"]["status"] == findings["longest wait"]["status"] == "warn"
            assert said in findings["executor that runs"]["detail"]
        there.clear()


def test_without_airflow(clinic: Clinic) -> None:
    """Where Airflow is not installed its checks are skipped, with the reason, and all others are made."""
    program = "import sys; sys.modules['airflow'] = None; from modalflow.cli import main; main()"
    env = os.environ | clinic.local.env | {"AIRFLOW__MODAL_EXECUTOR__APP_NAME": "patient"}
    env |= {"AIRFLOW__MODAL_EXECUTOR__EXECUTION_API_URL": clinic.api.url}
    done = subprocess.run(
        [sys.executable, "-c", program, "doctor", "--json"], env=env, capture_output=True, text=True, timeout=110
    )
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    skipped = {name for name, finding in findings.items() if finding["status"] == "skip"}
    assert skipped == {"executor", "Airflow versions", "executors", "task token"}
    assert "Airflow is not installed here" in findings["executor"]["detail"]
    assert findings["execution API"]["status"] == "ok"
