"""`modalflow migrate`: each setting of a pod is found in the source, and has its new line or a reason for none."""

from __future__ import annotations

import json
import os
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from modalflow.cli.migration.migrate import migrate
from modalflow.config.task_options import modal_config
from modalflow.operations.migration.findings import Kind
from modalflow.operations.migration.plan import Part, Plan, read_folder
from modalflow.operations.migration.quantities import cores, gpu_of_node, mebibytes

HEAD = """
from airflow.sdk import task
from kubernetes.client import models as k8s
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def plan_of(folder: Path, **files: str) -> Plan:
    """Return the plan for files by name, without their ending."""
    for name, text in files.items():
        path = folder / f"{name.replace('__', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return read_folder(folder)


def pod_task(containers: str = "", **spec: str) -> str:
    """Return a DAG file with one task and its pod."""
    more = "".join(f", {name}={value}" for name, value in spec.items())
    container = f'k8s.V1Container(name="base", {containers})'
    return (
        HEAD
        + f"""
POD = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[{container}]{more}))

@task(executor_config={{"pod_override": POD}})
def work(): ...
"""
    )


def only(plan: Plan) -> Part:
    assert len(plan.parts) == 1
    return plan.parts[0]


def options(part: Part) -> dict[str, Any]:
    """Return the options in the new line, as Python and modal_config read it."""
    written: dict[str, Any] = eval(
        part.new.removeprefix("executor_config="), {"modalflow": type("modalflow", (), {"modal_config": modal_config})}
    )["modal"]
    return written


def asked(part: Part) -> list[str]:
    """Return the settings that a person has to decide about."""
    return [finding.what for finding in part.findings if finding.kind is Kind.DECIDE]


def resources(requests: str = "{}", limits: str = "{}") -> str:
    return f"resources=k8s.V1ResourceRequirements(requests={requests}, limits={limits})"


@pytest.mark.parametrize(
    ("requests", "limits", "expected"),
    [
        ('{"cpu": "500m", "memory": "4Gi"}', "{}", {"cpu": 0.5, "memory": 4096}),
        ('{"cpu": 1, "memory": "1Gi"}', '{"cpu": "4", "memory": "2Gi"}', {"cpu": [1.0, 4.0], "memory": [1024, 2048]}),
        # The request of Kubernetes is the limit if there is none.
        ("{}", '{"memory": "1500M"}', {"memory": 1431}),
        ('{"memory": "64Mi"}', "{}", {"memory": 128}),
    ],
)
def test_sizes_keep_their_meaning(folder: Path, requests: str, limits: str, expected: dict[str, Any]) -> None:
    """Requests are reservations, and limits are limits."""
    part = only(plan_of(folder, dag=pod_task(resources(requests, limits))))
    assert options(part) == expected
    assert asked(part) == []


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ('{"cloud.google.com/gke-accelerator": "nvidia-tesla-t4"}', "T4:2"),
        ('{"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}', "A100-80GB:2"),
        ('{"node.kubernetes.io/instance-type": "g5.12xlarge"}', "A10:2"),
        ('{"cloud.google.com/gke-accelerator": "nvidia-l4"}', "L4:2"),
        ('{"nvidia.com/gpu.product": "NVIDIA-L40S"}', "L40S:2"),
    ],
)
def test_a_gpu_follows_from_the_number_and_the_node(folder: Path, selector: str, expected: str) -> None:
    """Kubernetes has the number in the limits and the model in a label of the node."""
    text = pod_task(resources(limits='{"nvidia.com/gpu": 2}'), node_selector=selector)
    assert options(only(plan_of(folder, dag=text))) == {"gpu": expected}


def test_a_gpu_without_a_model_is_a_decision(folder: Path) -> None:
    """No label names it: the report asks, instead of guessing a price."""
    part = only(plan_of(folder, dag=pod_task(resources(limits='{"nvidia.com/gpu": 1}'))))
    assert part.new == ""
    assert asked(part) == ["nvidia.com/gpu 1"]


def test_the_affinity_can_name_the_gpu(folder: Path) -> None:
    """A required term with one value has the meaning of a selector."""
    affinity = """k8s.V1Affinity(node_affinity=k8s.V1NodeAffinity(
        required_during_scheduling_ignored_during_execution=k8s.V1NodeSelector(node_selector_terms=[
            k8s.V1NodeSelectorTerm(match_expressions=[k8s.V1NodeSelectorRequirement(
                key="nvidia.com/gpu.product", operator="In", values=["NVIDIA-H100-80GB-HBM3"])])])))"""
    text = pod_task(resources(limits='{"nvidia.com/gpu": "1"}'), affinity=affinity)
    assert options(only(plan_of(folder, dag=text))) == {"gpu": "H100"}


def test_variables_secrets_volumes_and_the_image(folder: Path) -> None:
    """Plain variables become options; secrets, claims and images are prepared by a person. No secret is printed."""
    text = pod_task(
        """image="ghcr.io/acme/trainer:1.4",
        env=[k8s.V1EnvVar(name="HF_HOME", value="/tmp/hf"), k8s.V1EnvVar(name="API_TOKEN", value="hush"),
             k8s.V1EnvVar(name="MODAL_X", value="1"),
             k8s.V1EnvVar(name="DB", value_from=k8s.V1EnvVarSource(
                 secret_key_ref=k8s.V1SecretKeySelector(name="db", key="url")))],
        env_from=[k8s.V1EnvFromSource(secret_ref=k8s.V1SecretEnvSource(name="more"))],
        volume_mounts=[k8s.V1VolumeMount(name="m", mount_path="/models"),
                       k8s.V1VolumeMount(name="t", mount_path="/scratch")]""",
        volumes="""[k8s.V1Volume(name="m", persistent_volume_claim=k8s.V1PersistentVolumeClaimVolumeSource(
                 claim_name="models")), k8s.V1Volume(name="t", empty_dir=k8s.V1EmptyDirVolumeSource())]""",
    )
    plan = plan_of(folder, dag=text)
    part = only(plan)
    assert options(part) == {
        "secrets": ["db", "more"],
        "volumes": {"/models": "models"},
        "env": {"HF_HOME": "/tmp/hf"},
        "profile": "trainer-1.4",
    }
    assert len(asked(part)) == 6
    assert plan.images == {"ghcr.io/acme/trainer:1.4": "trainer-1.4"}
    assert "hush" not in repr(plan)


def test_settings_without_a_counterpart_are_named(folder: Path) -> None:
    """Each has its line; only those that a task can depend on ask for a person."""
    text = pod_task(
        "command=['sh']",
        tolerations="[k8s.V1Toleration(key='gpu')]",
        service_account_name="'loader'",
        init_containers="[k8s.V1Container(name='i')]",
        priority_class_name="'high'",
        active_deadline_seconds="600",
        brand_new="1",
    )
    part = only(plan_of(folder, dag=text))
    assert options(part) == {"timeout": 600}
    assert set(asked(part)) == {
        "container.command", "spec.service_account_name", "spec.init_containers", "spec.brand_new",
    }  # fmt: skip
    assert {f.what for f in part.findings if f.kind is Kind.DROP} == {"spec.tolerations", "spec.priority_class_name"}


def test_sidecars_are_named(folder: Path) -> None:
    """The container `base` runs the task, wherever it stands in the list."""
    text = pod_task(resources(limits='{"cpu": 1}') + "), k8s.V1Container(name='proxy'")
    part = only(plan_of(folder, dag=text.replace("containers=[", "containers=[k8s.V1Container(name='log'), ")))
    assert asked(part) == ["sidecar 'log'", "sidecar 'proxy'"]
    assert options(part) == {"cpu": 1.0}


def test_values_come_from_constants_of_the_folder(folder: Path) -> None:
    """Names are followed through files, f-strings and merged dicts; a finding has the file and line of the value."""
    part = only(
        plan_of(
            folder,
            common__pods="""
                from kubernetes.client import models as k8s
                REGISTRY = "ghcr.io/acme"
                IMAGE = f"{REGISTRY}/job:" + "2"
                BASE = {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(
                    containers=[k8s.V1Container(name="base", image=IMAGE)]))}
                """,
            dag="""
                from common.pods import BASE
                work = BashOperator(task_id="work", executor_config={**BASE, "CeleryExecutor": {}})
                """,
        )
    )
    assert part.task == "work"
    assert options(part) == {"profile": "job-2"}
    assert [(finding.place.path, finding.place.line) for finding in part.findings] == [
        ("common/pods.py", 4),
        ("dag.py", 3),
    ]


def test_functions_that_return_a_pod_are_followed(folder: Path) -> None:
    """A helper with parameters is usual: it is read with the arguments of each call, and their places."""
    plan = plan_of(
        folder,
        common__pods='''
            from kubernetes.client import models as k8s
            PREFIX = "acme"

            def pod(image, memory="1Gi", *, cpu=None):
                """Return a pod."""
                needs: object = {"memory": memory, "cpu": cpu}
                base = k8s.V1Container(name="base", image=f"{PREFIX}/{image}", resources={"requests": needs})
                return {"pod_override": k8s.V1Pod(spec=k8s.V1PodSpec(containers=[base]))}
            ''',
        dag="""
            from common import pods
            from common.pods import pod
            a = BashOperator(task_id="a", executor_config=pod("a:1", cpu=2))
            b = BashOperator(task_id="b", executor_config=pods.pod("b:1", "2Gi"))
            """,
    )
    assert [options(part) for part in plan.parts] == [
        {"cpu": 2.0, "memory": 1024, "profile": "a-1"},
        {"memory": 2048, "profile": "b-1"},
    ]


def test_a_file_that_refers_to_itself_ends(folder: Path) -> None:
    """Names that double at each step are given up, instead of being read for hours."""
    doubles = "\n".join(f"A{n} = [A{n + 1}, A{n + 1}, A{n + 1}]" for n in range(40)) + "\nA40 = 1"
    part = only(plan_of(folder, dag=f"{doubles}\n@task(executor_config={{'pod_override': A0}})\ndef work(): ..."))
    assert "it is too large" in part.findings[0].text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("def make():\n    print()\n    return {}\nC = make()", "make does more than assign names and return a value"),
        ("def make(a): return {}\nC = make()", "the arguments of make cannot be matched"),
        ("C = make()", "the result of make() is known only while the file runs"),
        ("C = {}\nC['pod_override'] = 1", "line 2 changes C"),
        ("C = {}\nC = {'a': 1}", "C is assigned 2 times"),
        ("C = {}\ndef f(C): ...", "line 2 changes C"),
        ("from elsewhere import C", "it comes from elsewhere, outside of the folder"),
        ("C = C", "it refers to itself"),
        ("import os\nC = os.environ['C']", "its value is known only while the file runs"),
        ("A = get()\nC = {**A}", "**A is not a constant dict"),
    ],
)
def test_a_value_of_the_run_is_named_with_its_reason(folder: Path, text: str, reason: str) -> None:
    """The report never guesses: it names the line, and keeps the old one."""
    part = only(plan_of(folder, dag=f"{text}\n@task(executor_config=C)\ndef work(): ..."))
    assert [finding.text for finding in part.findings] == [f"cannot be read without running the file: {reason}"]
    assert part.new == part.old


def test_a_part_of_the_run_leaves_the_rest(folder: Path) -> None:
    """One variable from os.environ does not hide the pod's other settings."""
    text = pod_task(
        resources('{"memory": "1Gi"}') + """, env=[k8s.V1EnvVar(name="A", value=os.environ["A"])]""",
        tolerations="make()",
    )
    part = only(plan_of(folder, dag=text))
    assert options(part) == {"memory": 1024}
    assert sorted(asked(part)) == ["tolerations make()", "value os.environ['A']"]


def test_queues_and_executors(folder: Path) -> None:
    """A queue selects a profile, and the names of other executors change. Other functions have a `queue`, too."""
    plan = plan_of(
        folder,
        dag="""
            default_args = {"retries": 1, "queue": "heavy"}
            a = BashOperator(task_id="a", queue="kubernetes", pool="p")
            b = BashOperator(task_id="b", executor="airflow.providers.x.CeleryExecutor")
            c = BashOperator(task_id="c", executor="ModalExecutor")
            publish(queue="amqp")
            """,
    )
    assert [(part.old, part.new) for part in plan.parts] == [
        ("queue='heavy'", "queue='heavy'"),
        ("queue='kubernetes'", 'executor="ModalExecutor"'),
        ("executor='airflow.providers.x.CeleryExecutor'", 'executor="ModalExecutor"'),
    ]
    assert not plan.needs_a_person


def test_pod_operators_stay(folder: Path) -> None:
    """They start pods of their own; only credentials from inside of the cluster ask for a person."""
    plan = plan_of(
        folder,
        dag="""
            a = KubernetesPodOperator(task_id="a", image="busybox")
            b = KubernetesPodOperator(task_id="b", image="busybox", in_cluster=True)
            def pod_mutation_hook(pod): ...
            a.executor_config = {"pod_override": 1}
            """,
    )
    assert [part.findings[0].kind for part in plan.parts] == [Kind.KEEP, *[Kind.DECIDE] * 3]


def test_the_old_form_of_the_kubernetes_executor(folder: Path) -> None:
    """Its keys mean what the same fields of a pod mean."""
    part = only(
        plan_of(
            folder,
            dag="""
            OLD = {"request_memory": "1Gi", "limit_memory": "2Gi", "image": "old:1", "gcp": 1}
            CONFIG = {"KubernetesExecutor": OLD}
            a = BashOperator(task_id="a", executor_config=CONFIG)
            """,
        )
    )
    assert options(part) == {"memory": [1024, 2048], "profile": "old-1"}
    assert asked(part) == ["image 'old:1'", "KubernetesExecutor['gcp']"]


def test_options_of_modal_stay(folder: Path) -> None:
    """Options that the file has already override those that follow from the pod."""
    text = pod_task(resources('{"memory": "1Gi", "cpu": 1}')).replace(
        '"pod_override": POD', '"modal": {"memory": "3GiB", "gpu": "T4"}, "pod_override": POD'
    )
    assert options(only(plan_of(folder, dag=text))) == {"memory": 3072, "cpu": 1.0, "gpu": "T4"}
    plan = plan_of(folder, dag="@task(executor_config=modal_config(gpu='T4'))\ndef work(): ...")
    assert plan.parts == []


def run(*arguments: object) -> Result:
    return CliRunner().invoke(migrate, [str(argument) for argument in arguments])


def test_the_exit_code_says_whether_a_person_is_needed(folder: Path) -> None:
    """0: all can be replaced as printed. 1: a decision, or a file that cannot be read. Nothing is written."""
    plan_of(folder, dag=pod_task(resources('{"memory": "1Gi"}')))
    before = (folder / "dag.py").read_text()
    done = run(folder)
    assert done.exit_code == 0, done.output
    assert "+ executor_config=modalflow.modal_config(memory='1GiB')" in done.output
    assert (folder / "dag.py").read_text() == before
    (folder / "broken.py").write_text("def")
    broken = run(folder)
    assert broken.exit_code == 1
    assert "broken.py:1: !" in broken.output
    assert run(folder / "dag.py").exit_code == 0
    empty = folder / "empty"
    empty.mkdir()
    assert "has no Python files" in run(empty).output


def test_json_has_every_finding_with_its_line(folder: Path) -> None:
    """A script can read the report."""
    plan_of(folder, dag=pod_task("image='a/b:1'"))
    report = json.loads(run(folder, "--json").output)
    assert report["needs_a_person"] is True
    assert report["profiles"] == [{"name": "b-1", "image": "a/b:1"}]
    (part,) = report["parts"]
    assert (part["file"], part["line"], part["task"]) == ("dag.py", 7, "work")
    assert [(found["line"], found["kind"]) for found in part["findings"]] == [(5, "decide")]


@pytest.mark.parametrize(
    ("text", "cpus", "mib"),
    [("500m", 0.5, 1), ("2", 2, 1), ("4Gi", 2**32, 4096), ("1e3", None, None), ("x", None, None), (True, None, None)],
)
def test_quantities(text: object, cpus: float | None, mib: int | None) -> None:
    """Quantities of Kubernetes have their meaning there."""
    assert cores(text) == cpus
    assert mebibytes(text) == mib


def test_labels_of_unknown_gpus_name_none() -> None:
    """Modal has no V100: the report asks for another GPU."""
    assert gpu_of_node("cloud.google.com/gke-accelerator", "nvidia-tesla-v100") == ""
    assert gpu_of_node("node.kubernetes.io/instance-type", "m5.large") == ""


@pytest.mark.parametrize("name", ["." * 60 + "settings", "a" * 300], ids=["above the root", "too long for a file"])
def test_an_import_that_names_no_possible_file_is_outside(folder: Path, name: str) -> None:
    """A reason, as for each value from elsewhere."""
    plan = plan_of(folder, dag=f"from {name} import config\nEmptyOperator(task_id='t', executor_config=config)\n")
    (finding,) = plan.findings
    assert finding.text.endswith("outside of the folder")


def test_a_named_pipe_is_not_read(folder: Path) -> None:
    """A read of it would wait for a writer."""
    os.mkfifo(folder / "pipe.py")
    (finding,) = read_folder(folder).unreadable
    assert finding.text == "cannot be read: it is no regular file"


@pytest.mark.parametrize(("value", "reason"), [("os.environ", "known only while"), ("3", "is no dict")])
def test_a_kubernetes_dict_that_cannot_be_read_is_a_decision(folder: Path, value: str, reason: str) -> None:
    """Otherwise the report would have its old line without a reason."""
    plan = plan_of(folder, dag=f"EmptyOperator(task_id='t', executor_config={{'KubernetesExecutor': {value}}})\n")
    (finding,) = plan.findings
    assert finding.kind is Kind.DECIDE
    assert reason in finding.text


@pytest.mark.parametrize(
    ("config", "what", "reason"),
    [
        ('{"modal": {"cpuu": 2}}', "cpuu", "did you mean 'cpu'?"),
        ('{"modal": {"cpu": "two"}}', "cpu", "expected a positive number of cores"),
        ('{"modal": ["cpu", 2]}', "'modal'", "expected a dict such as"),
        ('{"modal": {"gpu": "H1000"}}', "gpu", "H1000"),
        ('{"modal": {"memory": 4096, "memory_limit": 1024}}', "'modal'", "at least its memory"),
        ('modalflow.modal_config(timeout="1h")', "timeout", "expected seconds"),
        ('{"cpu": 2}', "'cpu'", "write it into modal_config"),
        ('{"Modal": {"cpu": 2}}', "'Modal'", "the key is 'modal'"),
        ('{"overrides": {}}', "'overrides'", "use modal_config(cpu="),
    ],
)
@pytest.mark.parametrize("beside", [False, True])
def test_options_that_the_executor_would_refuse_are_decisions(
    folder: Path, config: str, what: str, reason: str, beside: bool
) -> None:
    """A DAG that was half moved already: the report finds its mistakes, before a task fails with them."""
    config = f"{{**{config}, 'pod_override': k8s.V1Pod(spec=None)}}" if beside else config
    plan = plan_of(folder, dag=f"EmptyOperator(task_id='t', executor_config={config})")
    (finding,) = [finding for finding in plan.findings if finding.kind is Kind.DECIDE]
    assert (finding.what, reason in finding.text) == (what, True), finding.text


def test_options_beside_a_pod_are_kept(folder: Path) -> None:
    """`{**modal_config(…), "pod_override": …}` is the form for a task that runs on either."""
    text = pod_task(resources('{"cpu": 1}')).replace('{"pod_override', '{**modal_config(memory="4GiB"), "pod_override')
    part = only(plan_of(folder, dag=text))
    assert options(part) == {"cpu": 1.0, "memory": 4096}
    assert [finding.kind for finding in part.findings] == [Kind.CHANGE]
    text = pod_task(resources('{"cpu": 1}')).replace(
        '{"pod_override', '{"modal": {"gpu": GPU, "memory": 1024}, "pod_override'
    )
    part = only(plan_of(folder, dag=text))
    assert options(part) == {"cpu": 1.0, "memory": 1024}
    assert asked(part) == ["gpu GPU"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('SIZES = {"big": {"pod_override": POD}}', 'SIZES["big"]'),
        ("SIZES = [1, {'pod_override': POD}]", "SIZES[-1]"),
        ("class Sizes:\n    BIG = {'pod_override': POD}", "Sizes.BIG"),
        ("A = {'a': 1}", "A | {'pod_override': POD}"),
        ("A = {'a': 1}", "dict(A, pod_override=POD)"),
        ("A = {'pod_override': POD}", "dict(**A)"),
        ("def make(*a, pod=POD, **more):\n    return {'pod_override': pod, **more}", "make(1, a=2)"),
        ("def make(pod, name):\n    return {'pod_override': pod}\nA = {'name': 'x'}", "make(POD, **A)"),
    ],
)
def test_usual_ways_to_share_a_pod_are_read(folder: Path, text: str, value: str) -> None:
    """Tables of sizes, classes of constants, merged dicts, helpers with keywords for the rest."""
    pod = "POD = k8s.V1Pod(spec=k8s.V1PodSpec(containers=[{'name': 'base', 'resources': {'limits': {'cpu': str(2)}}}]))"
    part = only(plan_of(folder, dag=f"{pod}\n{text}\nEmptyOperator(task_id='t', executor_config={value})"))
    assert options(part) == {"cpu": 2.0}


@pytest.mark.parametrize(
    "value", ["A['b']", "A[0]", "B[2]", "B.x", "A | get()", "make(*B)", "make(**get())", "make(a=1)"]
)
def test_what_cannot_be_followed_has_a_reason(folder: Path, value: str) -> None:
    """No guess, and no error of the command."""
    text = "A = {'a': 1}\nB = [1]\ndef make(): return {}\n"
    part = only(plan_of(folder, dag=f"{text}EmptyOperator(task_id='t', executor_config={value})"))
    assert part.new == part.old
    assert "without running the file" in part.findings[0].text


@pytest.mark.parametrize(
    "body",
    [
        "def make(self):\n        BIG = {'pod_override': POD}",
        "if get():\n        BIG = {'pod_override': POD}",
        "BIG = {}\n    if get():\n        BIG = {'pod_override': POD}",
    ],
)
def test_an_attribute_of_a_class_is_assigned_in_its_body(folder: Path, body: str) -> None:
    """Not in a method, whose names are its own, and not below a condition."""
    text = f"POD = k8s.V1Pod()\nclass Sizes:\n    {body}\n"
    part = only(plan_of(folder, dag=f"{text}EmptyOperator(task_id='t', executor_config=Sizes.BIG)"))
    assert part.new == part.old and "without running the file" in part.findings[0].text


def test_a_name_in_a_method_hides_no_attribute(folder: Path) -> None:
    """It is another one."""
    text = "class Sizes:\n    BIG = {'modal': {'cpu': 2}, 'x': 1}\n    def make(self):\n        BIG = get()\n"
    part = only(plan_of(folder, dag=f"{text}EmptyOperator(task_id='t', executor_config=Sizes.BIG)"))
    assert options(part) == {"cpu": 2}


def test_an_image_of_the_run_needs_a_profile(folder: Path) -> None:
    """The line names the setting, not only its source."""
    part = only(plan_of(folder, dag=pod_task("image=Variable.get('image')")))
    assert part.findings[0].what == "image Variable.get('image')"
    assert "deploy a profile with this image" in part.findings[0].text


def test_uses_outside_of_a_tasks_call(folder: Path) -> None:
    """Default arguments with a queue alone, an override of a task, a policy that sets one key."""
    plan = plan_of(
        folder,
        dag="""
            DAG("d", default_args={"queue": "heavy"})
            fit.override(executor_config={"KubernetesExecutor": {"request_cpu": "1"}})()
            def task_instance_mutation_hook(ti):
                ti.executor_config["pod_override"] = make()
            """,
    )
    assert [(part.task, part.findings[-1].kind) for part in plan.parts] == [
        ("default arguments", Kind.KEEP),
        ("fit.override", Kind.CHANGE),
        ("ti", Kind.DECIDE),
    ]


def test_archives_and_linked_folders(folder: Path) -> None:
    """Airflow reads both. An archive with Python files is named, a linked folder is read once, and a circle ends."""
    shared, dags = folder / "shared", folder / "dags"
    shared.mkdir()
    dags.mkdir()
    (shared / "dag.py").write_text("BashOperator(task_id='a', executor='LocalExecutor')")
    (shared / "back").symlink_to(dags)
    (dags / "linked").symlink_to(shared)
    for name, inner in (("packed", "dag.py"), ("table", "rows.csv")):
        with zipfile.ZipFile(dags / f"{name}.zip", "w") as archive:
            archive.writestr(inner, "")
    (dags / "broken.zip").write_bytes(b"PK")
    os.mkfifo(dags / "pipe.zip")
    plan = read_folder(dags)
    assert [part.place.path for part in plan.parts] == ["linked/dag.py"]
    assert [(finding.place.path, "archive" in finding.text) for finding in plan.unreadable] == [("packed.zip", True)]
