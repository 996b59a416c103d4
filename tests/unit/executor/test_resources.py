"""What a task may ask for in its executor_config."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modalflow import modal_config
from modalflow.config.task_options import KEYS
from modalflow.errors import ConfigError, WorkloadRejectedError
from modalflow.executor.submission.resources import read_executor_config


def test_equal_requests_are_equal_resources() -> None:
    """However it is written, the same request shares a warm pool."""
    one = read_executor_config({"modal": {"memory": 1024, "cpu": 2, "gpu": " T4"}}).resources
    other = read_executor_config({"modal": {"gpu": "T4", "cpu": 2.0, "memory": 1024}}).resources
    assert one == other
    assert hash(one) == hash(other)
    assert one.plain() == {"cpu": 2.0, "gpu": "T4", "memory": 1024}


def test_environment_is_no_option() -> None:
    """Variables travel with the input: as an option each set of them would be a cold pool."""
    request = read_executor_config({"modal": {"env": {"A": "b"}}})
    assert request.env == {"A": "b"}
    assert not request.resources.options


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"gpu": "h100"}, {"gpu": "H100:1"}),
        ({"memory": "4GiB"}, {"memory": 4096.0}),
        ({"region": ["us-west", "us-east"]}, {"region": ("US-East", "us-west", "us-west")}),
        ({"region": ["eu"]}, {"region": "eu"}),
        ({"secrets": ["b", "a"]}, {"secrets": ("a", "b", "a")}),
        ({"volumes": {"/a": "a", "/b/": "b"}}, {"volumes": {"/b": "b", "/a": "a"}}),
        ({"cloud": "AWS", "cpu": None}, {"cloud": "aws"}),
    ],
)
def test_one_spelling_of_each_value(one: dict[str, Any], other: dict[str, Any]) -> None:
    """Case, units, order and repetitions make no second pool."""
    assert read_executor_config({"modal": one}).resources == read_executor_config({"modal": other}).resources


def test_the_helper_checks_where_a_dag_is_parsed() -> None:
    """What it returns is what the executor reads, of types that a serialized DAG can have."""
    config = modal_config(gpu="h100", cpu=(1, 4), volumes={"/models": "models"}, submit_attempts=5, env={"A": "b"})
    assert config == json.loads(json.dumps(config))
    request = read_executor_config({**config, "KubernetesExecutor": {}})
    assert request.resources.plain() == {"gpu": "H100", "cpu": [1.0, 4.0], "volumes": {"/models": "models"}}
    assert (request.submit_attempts, request.env) == (5, {"A": "b"})
    with pytest.raises(ConfigError, match=r"modal_config.* is 'gpus'; .*did you mean 'gpu'"):
        modal_config(gpus="T4")  # type: ignore[call-arg]
    with pytest.warns(UserWarning, match="did you mean 'H100'"):
        modal_config(gpu="H10")


def test_growth_is_no_option_of_modal() -> None:
    """It decides the next try's options: as an option itself, it would make a container pool of its own."""
    config = modal_config(memory="auto", cpu=" Auto ", memory_growth=2, memory_limit="4GiB", timeout_growth=1.5)  # type: ignore[arg-type]
    request = read_executor_config(config)
    assert request.resources.plain() == {"memory": "auto", "cpu": "auto"}
    assert request.terms.plain() == {"memory_growth": 2.0, "memory_limit": 4096, "timeout_growth": 1.5}
    assert not read_executor_config({"modal": {"memory": 512}}).terms.options


def test_the_helper_imports_neither_modal_nor_airflow() -> None:
    """A DAG file is parsed again and again: the helper costs it milliseconds."""
    program = "import sys, modalflow; modalflow.modal_config(gpu='T4'); print({'modal', 'airflow'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("config", [None, {}, {"modal": {}}, {"KubernetesExecutor": {"image": "x"}}])
def test_nothing_asked(config: Any) -> None:
    """What is meant for other executors is left alone."""
    assert not read_executor_config(config).resources.options


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ({"pod_override": object()}, ["'pod_override'", "Instead of 'pod_override': use modal_config("]),
        (
            {"KubernetesExecutor": {"image": "x"}, "modal": {"gpu": "T4"}},
            ["'KubernetesExecutor'", "a profile for an image"],
        ),
        ({"overrides": {}, "CeleryExecutor": {}}, ["'overrides', 'CeleryExecutor'", "modal_config(cpu=…, memory=…"]),
        ({"gpu": "T4", "env": {}}, ["'gpu' belongs under 'modal'; 'env' belongs under 'modal'", "modal_config(…)"]),
        ({"ModalExecutor": {"gpu": "T4"}}, ["the key is 'modal'"]),
        ({7: "x", None: "y", ("a",): "z"}, ["'7', 'None'"]),
        ({"\x1b[31m\0" + "k" * 10_000: 1}, ["\\x1b[31m\\x00k"]),
        ({f"key{n}": n for n in range(1000)}, ["'key7' and 992 more"]),
    ],
)
def test_keys_that_nothing_reads_are_named(config: Any, parts: list[str]) -> None:
    """The task runs, as DAGs are shared between executors; its log says what had no effect and what to use instead."""
    note = read_executor_config(config).note
    assert all(part in note for part in parts) and len(note) < 1500 and note.isprintable()


def test_what_modal_reads_needs_no_note() -> None:
    """No line in any log where everything has its effect."""
    assert not read_executor_config(modal_config(gpu="T4", env={"A": "b"})).note


@pytest.mark.parametrize("config", ["gpu", ["gpu"], 7, True, object(), "x" * 10_000_000])
def test_what_is_no_dict_is_rejected(config: Any) -> None:
    """Airflow's own scheduler stops before it hands one over; a program that calls the executor gets the reason."""
    with pytest.raises(
        WorkloadRejectedError, match=r"^executor_config is .*; expected a dict, e\.g\. modalflow"
    ) as error:
        read_executor_config(config)
    assert len(str(error.value)) < 1000


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"gpus": "T4"}, "'gpus'.*did you mean 'gpu'"),
        ({"image": "python"}, "deploy a profile with the image"),
        ({"memory": "lots"}, "MiB from 128 up"),
        ({"memory": 0.5}, "MiB from 128 up"),
        ({"memory": 64}, "MiB from 128 up"),
        ({"memory": "4GB per task"}, "MiB from 128 up"),
        ({"memory": (2048, 1024)}, "a limit of at least the reservation"),
        ({"memory": "atuo"}, r"'auto' \(did you mean 'auto'\?\)"),
        ({"cpu": "automatic"}, r"a positive number of cores .*, or 'auto' \(did you mean 'auto'\?\)"),
        ({"memory": ("auto", 2048)}, "MiB from 128 up"),
        ({"memory_growth": 1}, r"\['memory_growth'\] is 1; expected a factor above 1, at most 10, e.g. 2"),
        ({"memory_growth": 0.5}, "a factor above 1"),
        ({"memory_growth": True}, "a factor above 1"),
        ({"memory_growth": 100}, "a factor above 1, at most 10"),
        ({"timeout_growth": float("inf")}, "a factor above 1"),
        ({"timeout_growth": "2"}, "a factor above 1"),
        ({"memory": 2048, "memory_limit": 1024}, "'memory_limit'.* is 1024; expected at least its memory, 2048 MiB"),
        ({"memory": (128, "2GiB"), "memory_limit": "1GiB"}, "at least its memory, 2048 MiB"),
        ({"memory_limit": "400"}, "MiB from 128 up, or a text such as '16GiB'"),
        ({"memory_limit": (1024, 2048)}, "MiB from 128 up"),
        ({"timeout": 3600, "timeout_limit": 60}, "at least its timeout, 3600 seconds"),
        ({"timeout_limit": 90_000}, "seconds from 1 to 86400"),
        ({"cpu": -1}, "a positive number of cores"),
        ({"cpu": (1, 2, 3)}, "a positive number of cores"),
        ({"timeout": 0}, "seconds from 1 to 86400"),
        ({"timeout": True}, "seconds from 1 to 86400"),
        ({"timeout": 90_000}, "seconds from 1 to 86400"),
        ({"gpu": ""}, "a GPU, with ':n'"),
        ({"gpu": "H100:0"}, "a GPU, with ':n'"),
        ({"gpu": "H100:16"}, "up to 8 of them"),
        ({"region": []}, "a region or a list of regions"),
        ({"env": {"A": 1}}, "a dict of texts"),
        ({"env": {"A": "x" * 131_070}}, r"\['env'\]\['A'\] is 131,072 bytes long, with its name; .* at most 131,071"),
        ({"env": {f"A{n}": "x" * 60_000 for n in range(20)}}, "1,200,.* bytes in 20 variables, the longest 'A10'"),
        ({"env": {"": "x"}}, "a name in .* is ''"),
        ({"env": {"A": "x\0"}}, "is a text with null characters"),
        ({"env": {"MODAL_TOKEN_ID": "x"}}, "a variable's name, other than MODALFLOW_"),
        ({"secrets": [1]}, "the name of a Secret"),
        ({"secrets": []}, "a list of names"),
        ({"volumes": ["models"]}, "a dict of mount paths"),
        ({"volumes": {"models": "models"}}, "an absolute path"),
        ({"volumes": {"/opt/modalflow/logs/x": "models"}}, "is inside '/opt/modalflow', and modalflow keeps"),
        ({"volumes": {"/a": "models", "/a/": "data"}}, "one mount at each path: there is another one at '/a'"),
        ({"volumes": {"/a": "models", 1: "data"}}, "it is of type int"),
        ({"volumes": {"/a": "models", "/b": "models"}}, "at one path only"),
        ({"volumes": {f"/v{n}": f"v{n}" for n in range(101)}}, "at most 100"),
        ({"secrets": [f"s{n}" for n in range(101)]}, "at most 100"),
        ({"region": ["us-east"] * 101}, "a region or a list of regions"),
        ({"cloud": "a" * 65}, "at most 64 characters"),
        ({"region": "us\0east"}, "a region or a list of regions"),
        ({"submit_attempts": 0}, "submissions from 1 to 100"),
        ({"infrastructure_retries": -1}, "runs after a lost container from 0 to 100"),
        ({"retries": 3}, "'submit_attempts' applies before it"),
        ({"max_containers": 3}, "Set it in a profile for all its tasks"),
        ("T4", "a dict such as"),
    ],
)
def test_mistake_is_named(wanted: Any, message: str) -> None:
    """The message names the key, its value and what was expected."""
    with pytest.raises(WorkloadRejectedError, match=message):
        read_executor_config({"modal": wanted})


_ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(max_size=5) | st.integers() | st.just("/a"), inner, max_size=3)
        | st.tuples(inner, inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300)
@given(
    st.fixed_dictionaries({"modal": st.dictionaries(st.sampled_from([*KEYS, "x"]), _ANYTHING, max_size=3) | _ANYTHING})
    | st.dictionaries(st.text(max_size=5) | st.integers() | st.none(), _ANYTHING, max_size=3)
    | _ANYTHING
)
@example({"modal": {"memory": math.inf}})
@example({"modal": {"memory": math.nan}})
@example({"modal": {"memory": "9" * 400 + "GiB"}})
@example({"modal": {"cpu": math.inf}})
@example({"modal": {"cpu": 10**400}})
@example({"modal": {"cpu": 10**5000}})
@example({"modal": {"memory": 2**32}})
@example({"modal": {"submit_attempts": 10**5000}})
@example({"modal": {10**5000: 1}})
@example({10**5000: 1})
@example({"modal": {"timeout": 10**400}})
@example({"modal": {"volumes": {"/a": "a", 1: "b"}}})
@example({"modal": {"secrets": [[], {}]}})
@example({"modal": {"gpu": ["T4"]}})
def test_nothing_that_a_task_asks_for_raises_anything_else(config: Any) -> None:
    """Whatever is in an executor_config, it is read, or rejected with a reason of a bounded length."""
    try:
        request = read_executor_config(config)
    except WorkloadRejectedError as error:
        assert len(str(error)) < 5000
        return
    assert hash(request.resources) is not None and json.dumps(request.resources.plain(), allow_nan=False)
