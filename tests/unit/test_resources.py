"""What a task may ask for in its executor_config."""

from __future__ import annotations

from typing import Any

import pytest

from modalflow.errors import WorkloadRejectedError
from modalflow.executor.resources import read_executor_config


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


@pytest.mark.parametrize("config", [None, {}, {"modal": {}}, {"KubernetesExecutor": {"image": "x"}}])
def test_nothing_asked(config: Any) -> None:
    """What is meant for other executors is left alone."""
    assert not read_executor_config(config).resources.options


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"gpus": "T4"}, "'gpus'.*did you mean 'gpu'"),
        ({"image": "python"}, "deploy a profile with it"),
        ({"memory": "lots"}, "MiB from 128 up"),
        ({"memory": 0.5}, "MiB from 128 up"),
        ({"memory": 64}, "MiB from 128 up"),
        ({"memory": "4GB per task"}, "MiB from 128 up"),
        ({"memory": (2048, 1024)}, "a limit that is not below"),
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
        ({"env": {"MODAL_TOKEN_ID": "x"}}, "a variable's name, other than MODALFLOW_"),
        ({"secrets": [1]}, "the name of a Secret"),
        ({"secrets": []}, "a list of names"),
        ({"volumes": ["models"]}, "a dict of mount paths"),
        ({"volumes": {"models": "models"}}, "an absolute path"),
        ({"volumes": {"/vol/logs/x": "models"}}, "not in /vol/logs"),
        ({"volumes": {"/a": "models", "/b": "models"}}, "at one path only"),
        ({"submit_attempts": 0}, "submissions from 1 to 100"),
        ({"retries": 3}, "'submit_attempts' is for what no container has begun"),
        ({"max_containers": 3}, "the same for all tasks of a profile"),
        ("T4", "a dict such as"),
    ],
)
def test_mistake_is_named(wanted: Any, message: str) -> None:
    """The message names the key, its value and what was expected."""
    with pytest.raises(WorkloadRejectedError, match=message):
        read_executor_config({"modal": wanted})
