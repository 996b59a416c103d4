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
    assert one.as_arguments() == {"cpu": 2.0, "gpu": "T4", "memory": 1024}


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
        ({"memory": "lots"}, "a positive number or"),
        ({"memory": 0.5}, "a positive number or"),
        ({"cpu": -1}, "a positive number or"),
        ({"cpu": (1, 2, 3)}, "a positive number or"),
        ({"timeout": 0}, "seconds from 1 to 86400"),
        ({"timeout": True}, "seconds from 1 to 86400"),
        ({"gpu": ""}, "a text such as"),
        ({"region": []}, "a region or a list of regions"),
        ({"env": {"A": 1}}, "a dict of texts"),
        ("T4", "a dict such as"),
    ],
)
def test_mistake_is_named(wanted: Any, message: str) -> None:
    """The message names the key, its value and what was expected."""
    with pytest.raises(WorkloadRejectedError, match=message):
        read_executor_config({"modal": wanted})
