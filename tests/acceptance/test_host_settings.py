"""The Airflow host's settings in a task: what LocalExecutor's tasks have, Modal's have."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from modalflow.airflow_home.rules.table import rule_of
from modalflow.demo.modal_stack import MODAL_EXECUTOR, ON_MODAL, ModalStack
from modalflow.emulator.options import Options
from modalflow.names import airflow_variable
from modalflow.worker.environment import API_CLIENT_DEFAULTS
from tests.acceptance.airflow_on_modal import CALM, finish_run, in_database, start_run
from tests.acceptance.every_option import WITH_EVERY_OPTION
from tests.acceptance.evidence import log_of, not_on_modal, states_of
from tests.acceptance.receivers import Received, receiving
from tests.airflows import AIRFLOW, needs_airflow
from tests.every_option.values import MODULES, changed
from tests.forked_stack import forked_stack
from tests.support import wait_until

pytestmark = [pytest.mark.timeout(300), pytest.mark.matrix]

DAGS = Path(__file__).parent / "host_settings"
PLACES = ("home", "away")
AT_HOME = [f"{task}_home" for task in ("see", "pass", "remember", "defer", "read")]
LOCAL_SECRETS = "airflow.secrets.local_filesystem.LocalFilesystemBackend"
OWN_LOGGING = ON_MODAL["AIRFLOW__LOGGING__LOGGING_CONFIG_CLASS"]
#: Option → why it keeps its default here in a run with every option.
KEPT = {
    ("openlineage", "disabled"): "It switches lineage off.",
    ("openlineage", "selective_enable"): "It switches lineage off for DAGs that do not ask for it.",
    ("openlineage", "config_conn_id"): "It replaces the transport of the test.",
    ("openlineage", "config_path"): "It replaces the transport of the test.",
    ("state_store", "clear_on_success"): "The test reads the state of a task after its end.",
    ("common.io", "xcom_objectstorage_compression"): "It is in a file here, which has other values of its section.",
    ("common.io", "xcom_objectstorage_path"): "It is in a file here.",
    ("common.io", "xcom_objectstorage_threshold"): "It is in a file here.",
    **{
        # A variable cannot name this section: `conf.get` reads its value, and `conf.as_dict` puts it elsewhere.
        ("common.io", f"state_store_objectstorage_{option}"): "Its other value is in a file here."
        for option in ("compression", "path", "threshold")
    },
    ("workers", "secrets_backend_kwargs"): "Its value comes from a command here.",
    ("metrics", "legacy_names_on"): "The test reads a name with the names of the DAG and the task in it.",
    ("smtp", "smtp_ssl"): "The receiver of the test has no certificate.",
    ("metrics", "statsd_ipv6"): "The receiver of the test has an address of IPv4.",
    ("triggerer", "queues_enabled"): "It needs a triggerer for each queue.",
    ("sentry", "sentry_on"): "Its receiver does not exist.",
    ("email", "default_email_on_failure"): "The test reads the mail about a failure.",
}
#: XComs from this size on are files.
THRESHOLD = 200


@dataclass(frozen=True)
class Acme:
    """A deployment with settings of its own: its folder, which containers have as a bucket, and what it sends away."""

    folder: Path
    received: Received

    @property
    def env(self) -> dict[str, str]:
        """The settings, as variables of every process of the Airflow host; some are in a file that they name."""
        secrets = {which: self._secrets(which) for which in ("host", "worker")}
        smtp = {"disable_ssl": True, "disable_tls": True, "from_email": "airflow@example.com"}
        return {
            **(self._every_option() if WITH_EVERY_OPTION else {}),
            "ACME_FOLDER": str(self.folder),
            # Airflow imports the module of the XCom backend in all its processes.
            "PYTHONPATH": os.pathsep.join(filter(None, (str(DAGS), str(MODULES), os.environ.get("PYTHONPATH", "")))),
            "AIRFLOW_CONFIG": self._config_file(secrets["worker"]),
            "AIRFLOW__CORE__EXECUTOR": f"{MODAL_EXECUTOR},LocalExecutor",
            "AIRFLOW__CORE__DEFAULT_TIMEZONE": "Europe/Berlin",
            "AIRFLOW__CORE__XCOM_BACKEND": "acme_backends.LabelledXCom",
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "AIRFLOW__SECRETS__BACKEND": LOCAL_SECRETS,
            "AIRFLOW__SECRETS__BACKEND_KWARGS": json.dumps(secrets["host"]),
            "AIRFLOW__WORKERS__SECRETS_BACKEND": LOCAL_SECRETS,
            "AIRFLOW__WORKERS__STATE_STORE_BACKEND": "acme_backends.FileState",
            "AIRFLOW__OPENLINEAGE__TRANSPORT": json.dumps(
                {"type": "file", "log_file_path": str(self.made("lineage") / "event")}
            ),
            "AIRFLOW__OPENLINEAGE__NAMESPACE": "acme",
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self.received.statsd_port),
            "AIRFLOW__METRICS__STATSD_PREFIX": "acme",
            # For an e-mail backend that reads no connection.
            "AIRFLOW__SMTP__SMTP_PORT": str(self.received.smtp_port),
            # Older versions have no span of a task's process, and read no variables.
            "AIRFLOW__TRACES__OTEL_ON": str(AIRFLOW >= (3, 2)),
            "OTEL_TRACES_EXPORTER": "otlp_proto_http",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{self.received.trace_port}/v1/traces",
            "OTEL_SERVICE_NAME": "acme-airflow",
            # Before 3.2, Airflow fails every task of LocalExecutor if the connection of the task logs does not exist.
            **({"AIRFLOW__LOGGING__REMOTE_LOG_CONN_ID": "smtp_default"} if AIRFLOW < (3, 2) else {}),
            # `[email] email_conn_id` has the name of one of them.
            **dict.fromkeys(
                ("AIRFLOW_CONN_SMTP_DEFAULT", "AIRFLOW_CONN_ACME_SMTP"),
                json.dumps({"conn_type": "smtp", "host": "127.0.0.1", "port": self.received.smtp_port, "extra": smtp}),
            ),
        }

    def _every_option(self) -> dict[str, str]:
        return {airflow_variable(*key): value for key, value in changed(self.folder).items() if key not in KEPT}

    def _state_options(self) -> dict[str, str]:
        return {
            option: value
            for (section, option), value in changed(self.folder).items()
            if section == "common.io" and option.startswith("state_store_")
        }

    def made(self, name: str) -> Path:
        """A folder in the common one."""
        path = self.folder / name
        path.mkdir(exist_ok=True)
        return path

    def reports(self) -> dict[str, Any]:
        """Task → its report."""
        return {path.stem: json.loads(path.read_text()) for path in self.made("reports").iterdir()}

    def lineage(self) -> list[dict[str, Any]]:
        """Every event of OpenLineage."""
        return [json.loads(path.read_text()) for path in self.made("lineage").iterdir()]

    def _config_file(self, secrets: Mapping[str, str]) -> str:
        """The settings that are in a file: those of another section than a variable can name, and of a command."""
        sections: dict[str, dict[str, object]] = {
            "acme": {"report_folder": self.folder / "reports", "state_folder": self.folder / "state"},
            "common.io": {
                **(self._state_options() if WITH_EVERY_OPTION else {}),
                "xcom_objectstorage_path": f"file://{self.folder}/xcoms",
                "xcom_objectstorage_threshold": THRESHOLD,
            },
            "workers": {"secrets_backend_kwargs_cmd": f"cat {self._file('kwargs.json', secrets)}"},
        }
        lines = [
            line
            for section, options in sections.items()
            for line in (f"[{section}]", *(f"{option} = {value}" for option, value in options.items()))
        ]
        path = self.folder / "airflow.cfg"
        path.write_text("\n".join(lines))
        return str(path)

    def _secrets(self, which: str) -> dict[str, str]:
        """Files of a secrets backend that only the Airflow host, or only workers use; its arguments."""
        variables = {f"{which}_only": f"from the {which}'s backend"}
        connections = {f"{which}_conn": {"conn_type": "generic", "password": f"of the {which}"}}
        return {
            "variables_file_path": self._file(f"{which}-variables.json", variables),
            "connections_file_path": self._file(f"{which}-connections.json", connections),
        }

    def _file(self, name: str, content: Mapping[str, Any]) -> str:
        path = self.folder / name
        path.write_text(json.dumps(content))
        return str(path)


@pytest.fixture(scope="module")
def acme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acme]:
    """The settings, and the servers that they name."""
    with receiving() as received:
        yield Acme(tmp_path_factory.mktemp("acme"), received)


@pytest.fixture(scope="module")
def airflow(acme: Acme) -> Iterator[ModalStack]:
    """An Airflow with those settings, and both executors.

    Containers have this machine's network: tasks report to servers on its loopback, of traces, metrics and mail.
    """
    deploy = (str(Path(__file__).parent / "host_settings_worker.py"),)
    modal = Options(buckets=(f"acme={acme.folder}",))
    with forked_stack(DAGS, env={**CALM, **acme.env}, modal=modal, deploy=deploy, report=print) as running:
        yield running


@pytest.fixture(scope="module")
def run_id(airflow: ModalStack) -> str:
    """An ended run of the DAG that reads the settings, each once with LocalExecutor and once on Modal."""
    run_id = start_run(airflow, "settings_read")
    try:
        assert finish_run(airflow, "settings_read", run_id, 200.0) == "success"
    except AssertionError as error:
        states = states_of(airflow, "settings_read", run_id)
        for task_id in (task_id for task_id, state in states.items() if state not in (None, "success")):
            print(task_id, *log_of(airflow, "settings_read", run_id, task_id), sep="\n")
        pytest.fail(f"{error}\n{states}\n{airflow.airflow.reports(['scheduler'])}")
    return run_id


@pytest.fixture(scope="module")
def seen(run_id: str, acme: Acme) -> dict[str, dict[str, Any]]:
    """Place → what a task there sees."""
    reports = acme.reports()
    return {place: reports[f"see_{place}"] for place in PLACES}


def test_each_task_runs_where_it_says(airflow: ModalStack, run_id: str) -> None:
    """Otherwise nothing below would be shown."""
    assert not_on_modal(airflow, "settings_read", run_id, but=AT_HOME) == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("time zone", "Europe/Berlin 2025-11-30 23:00:00+00:00"),
        ("deferrable", True),
        ("host_only", "from the host's backend"),
        ("worker_only", "from the worker's backend"),
        ("host_conn", "of the host"),
        ("worker_conn", "of the worker"),
    ],
)
def test_a_setting_holds(seen: dict[str, dict[str, Any]], place: str, what: str, expected: object) -> None:
    """Of the time zone, of operators, and of the secrets backends of the host and of workers."""
    assert seen[place][what] == expected


@pytest.mark.parametrize("task", ["see", "defer"])
@pytest.mark.usefixtures("run_id")
def test_no_other_option_differs(acme: Acme, task: str) -> None:
    """`conf.as_dict()` is the same in both, except for options whose row of the table says that they do not travel.
    The same is true after a deferral."""
    confs = [acme.reports()[f"{task}_{place}"]["conf"] for place in PLACES]
    home, away = ({(s, o): v for s, options in conf.items() for o, v in options.items()} for conf in confs)
    differing = {key: (home.get(key), away.get(key)) for key in {*home, *away} if home.get(key) != away.get(key)}
    unexplained = {
        f"[{section}] {option} is {values}"
        for (section, option), values in differing.items()
        if ((rule := rule_of(section, option)) is None or rule.place.leaves_host)
        and airflow_variable(section, option) not in API_CLIENT_DEFAULTS
    }
    # The table lets a class of one's own travel. modalflow's is for reading logs, which a container does not.
    unexplained.discard(f"[logging] logging_config_class is {(OWN_LOGGING, '')}")
    assert not unexplained, "\n".join(sorted(unexplained))


@pytest.mark.parametrize("task", ["see", "defer"])
@pytest.mark.usefixtures("run_id")
def test_variables_of_telemetry_are_the_same(acme: Acme, task: str) -> None:
    """OpenTelemetry and OpenLineage read variables beside Airflow's options."""
    home, away = (acme.reports()[f"{task}_{place}"]["telemetry"] for place in PLACES)
    assert away == home
    assert home["OTEL_SERVICE_NAME"] == "acme-airflow"


@pytest.mark.parametrize("link", ["log_url", pytest.param("approval", marks=needs_airflow("3.1"))])
def test_links_lead_to_the_address_of_the_host(airflow: ModalStack, seen: dict[str, dict[str, Any]], link: str) -> None:
    """Of a log, and of a question to a human."""
    assert seen["away"][link] == seen["home"][link]
    assert seen["away"][link].startswith(airflow.airflow.url)


@pytest.mark.parametrize("place", PLACES)
def test_xcoms_are_in_the_backend_of_the_host(airflow: ModalStack, acme: Acme, run_id: str, place: str) -> None:
    """Each executor's tasks read the other's: small ones in Airflow's database, large ones in files."""
    small, large = {"rows": 3}, {"rows": list(range(300))}
    assert acme.reports()[f"read_{place}"] == [[small, small, large, large]]
    query = "SELECT task_id, value FROM xcom WHERE run_id = :run_id AND key = 'return_value'"
    stored = {row["task_id"]: json.dumps(row["value"]) for row in in_database(airflow, query, run_id=run_id)}
    assert "acme" in stored[f"see_{place}"]
    url = f"file://{acme.folder}/xcoms/"
    assert url in stored[f"pass_{place}"]
    assert [path for path in (acme.folder / "xcoms").rglob("*") if path.is_file() and f"pass_{place}" in str(path)]


@needs_airflow("3.3")
@pytest.mark.parametrize("place", PLACES)
def test_the_state_of_a_task_is_in_the_backend_of_the_host(
    airflow: ModalStack, acme: Acme, run_id: str, place: str
) -> None:
    """Of `[workers] state_store_backend`: the value in a file, its path in Airflow's database."""
    assert acme.reports()[f"remember_{place}"] == {"page": 7}
    file = acme.folder / "state" / f"remember_{place}-cursor.json"
    assert json.loads(file.read_text()) == {"page": 7}
    query = "SELECT value FROM task_state_store WHERE task_id = :task_id"
    (row,) = in_database(airflow, query, task_id=f"remember_{place}")
    assert str(file) in str(row["value"])


@pytest.mark.parametrize("place", PLACES)
def test_lineage_arrives(acme: Acme, run_id: str, place: str) -> None:
    """OpenLineage's events of a task's start and end, in the host's namespace."""
    events = [event for event in acme.lineage() if event["job"]["name"] == f"settings_read.see_{place}"]
    assert {event["eventType"] for event in events} == {"START", "COMPLETE"}
    assert {event["job"]["namespace"] for event in events} == {"acme"}


@needs_airflow("3.2")
@pytest.mark.parametrize("place", PLACES)
def test_a_span_of_a_task_is_below_the_scheduler_s(acme: Acme, run_id: str, place: str) -> None:
    """A trace has the DAG run, below it the task instance, and below that the span of the task's process."""
    names = (f"worker.see_{place}", f"task_run.see_{place}", "dag_run.settings_read")
    own, instance, run = [acme.received.span(name) for name in names]
    assert own.trace_id == instance.trace_id == run.trace_id
    assert (own.parent_id, instance.parent_id) == (instance.span_id, run.span_id)
    assert own.service == instance.service == "acme-airflow"


@needs_airflow("3.1")
@pytest.mark.parametrize("place", PLACES)
def test_metrics_of_the_process_of_a_task_arrive(acme: Acme, run_id: str, place: str) -> None:
    """StatsD, with the host's prefix: a counter that only the process of a task counts."""
    wanted = f"acme.ti.start.settings_read.see_{place}:1|c"
    wait_until(lambda: wanted in acme.received.datagrams, 10.0, wanted)


@pytest.fixture(scope="module")
def failed_run_id(airflow: ModalStack) -> str:
    """An ended run of the DAG whose tasks fail."""
    run_id = start_run(airflow, "settings_mail")
    assert finish_run(airflow, "settings_mail", run_id) == "failed"
    return run_id


@needs_airflow("3.2")
@pytest.mark.parametrize("place", PLACES)
def test_a_mail_about_a_failure_leads_to_the_host(
    airflow: ModalStack, acme: Acme, failed_run_id: str, place: str
) -> None:
    """Sent by the process of the task through the host's SMTP connection, with a link to the log."""
    mail = acme.received.mail(f"fail_{place}")
    assert f"{airflow.airflow.url}/dags/settings_mail/runs/" in mail, mail
    assert "localhost:8080" not in mail
