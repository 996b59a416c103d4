"""What may be said of a profile, and of the Worker that has it: mistakes are named where they are made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import modal
import pytest

import modalflow
from modalflow.errors import ConfigError
from modalflow.worker.deploy.profile import Profile


def test_values_are_canonical() -> None:
    """However it is written, the same profile is the same, and compares with what a task asks for."""
    profile = Profile("gpu", cpu=2, memory="4GiB", gpu=" h100:1", region=["us-west", "US-east", "us-west"], cloud="AWS")
    assert profile.granted() == {
        "cpu": 2.0,
        "memory": 4096,
        "gpu": "H100",
        "timeout": 86400,
        "region": ["us-east", "us-west"],
        "cloud": "aws",
        "concurrency": 1,
    }


def test_a_gpu_is_not_shared_unless_somebody_says_so() -> None:
    """Four light tasks share a container; with a GPU it is one, or as many as are asked for."""
    assert [p.concurrency for p in (Profile(), Profile(gpu="T4"), Profile(gpu="T4", concurrency=8))] == [4, 1, 8]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "my gpu"}, r"name of modalflow.Profile\('my gpu'\) is 'my gpu'; expected the name of a profile"),
        ({"name": 7}, "expected a text"),
        ({"memory": 64}, "memory of modalflow.Profile.* is 64; expected MiB from 128 up"),
        ({"timeout": 90_000}, "seconds from 1 to 86400"),
        ({"gpu": "H100:x"}, "a GPU, with ':n'"),
        ({"gpu": []}, "a list of them"),
        ({"min_containers": 3, "max_containers": 2}, "min_containers .* is 3; expected at most its max_containers, 2"),
        ({"concurrency": 0}, "tasks that share a container from 1 to 1000"),
        ({"scaledown_window": 1}, "seconds from 2 to 3600"),
        ({"secrets": ["huggingface"]}, r"modal.Secret.from_name\('aws'\)"),
        ({"volumes": {"/models": "models"}}, r"modal.Volume.from_name\('models'\)"),
        (
            {"volumes": {"/opt": modal.Volume.from_name("x")}},
            "contains '/opt/modalflow', and .*Reserved with everything",
        ),
        ({"volumes": {"/opt/": modal.CloudBucketMount("x")}}, "contains '/opt/modalflow', and modalflow keeps logs"),
        ({"volumes": {"/a": modal.Volume.from_name("x"), "//a/.": modal.Volume.from_name("y")}}, "one mount at each"),
        ({"image": "python:3.12"}, "a modal.Image"),
        ({"image_has_airflow": True}, "False without an image"),
        ({"env": {"MODALFLOW_APP": "x"}}, "other than MODALFLOW_"),
        ({"env": {"PEM": "x" * 200_000}}, r"env of .*\['PEM'\] is 200,004 bytes long, with its name; expected at most"),
        ({"preload": "torch"}, "a list of modules' names"),
        ({"preload": ["tor ch"]}, "a list of modules' names"),
        ({"gpu": "T4", "nonpreemptible": True}, "Modal has no such containers"),
        ({"memory_snapshot": "yes"}, "True or False"),
        ({"memory": "atuo"}, r"memory of modalflow.Profile.* is 'atuo'; .*or 'auto' \(did you mean 'auto'\?\)"),
        ({"memory_growth": 1}, "memory_growth of .* is 1; expected a factor above 1"),
        ({"memory": "8GiB", "memory_limit": "4GiB"}, "memory_limit of .* is 4096; expected at least its memory, 8192"),
        ({"memory_limit": 64}, "MiB from 128 up"),
        ({"timeout": 600, "timeout_limit": 60}, "timeout_limit of .* is 60; expected at least its timeout, 600"),
    ],
)
def test_a_mistake_names_field_value_and_what_was_expected(wrong: dict[str, Any], message: str) -> None:
    """Raised by the line of the user's file that is wrong, before anything is built."""
    with pytest.raises(ConfigError, match=message):
        Profile(**wrong)


def test_growth_and_auto_are_for_the_executor() -> None:
    """The deployed Function has Modal's own size in place of "auto", and the executor knows how tasks are sized."""
    profile = Profile(cpu="auto", memory="auto", memory_growth=2, memory_limit="8GiB", timeout=60, timeout_growth=1.5)
    passed = profile.arguments()
    assert (passed["cpu"], passed["memory"]) == (None, None)
    assert not {"memory_growth", "memory_limit"} & passed.keys()
    granted = profile.granted()
    assert (granted["cpu"], granted["memory"]) == ("auto", "auto")
    assert (granted["memory_growth"], granted["memory_limit"], granted["timeout_growth"]) == (2.0, 8192, 1.5)
    assert profile.facts()["memory_growth"] == 2.0


def test_everything_about_a_profile_is_recorded_but_no_value_of_a_variable() -> None:
    """What is recorded tells a change of any field; of variables it has a digest only."""
    volumes: dict[str, modal.Volume | modal.CloudBucketMount] = {
        "/models": modal.Volume.from_name("models"),
        "/data": modal.CloudBucketMount("our-bucket"),
    }
    secrets = [modal.Secret.from_name("huggingface"), modal.Secret.from_dict({"KEY": "hidden"})]
    facts = Profile(
        "gpu", gpu="T4", secrets=secrets, volumes=volumes, env={"TOKEN": "hidden"}, preload=["json"]
    ).facts()
    assert facts["secrets"] == ["huggingface", "(without a name)"]
    assert facts["volumes"] == {"/models": "models", "/data": "a bucket"}
    assert facts["preload"] == ["json"]
    assert "hidden" not in str(facts) and list(facts["env"]) == ["TOKEN"]


def test_a_worker_has_a_default_profile() -> None:
    """A file that names a GPU's profile alone still runs what asks for nothing."""
    assert [p.name for p in modalflow.Worker().profiles] == ["default"]
    assert [p.name for p in modalflow.Worker(profiles=[Profile("gpu")]).profiles] == ["default", "gpu"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"profiles": [Profile("a"), Profile("a")]}, "'a' occurs twice"),
        ({"profiles": ["gpu"]}, "a list of modalflow.Profile"),
        ({"env": {"A": 1}}, "a dict of texts"),
        ({"app": "my app"}, "app of modalflow.Worker"),
    ],
)
def test_a_workers_mistake_is_named(wrong: dict[str, Any], message: str) -> None:
    """As a profile's."""
    with pytest.raises(ConfigError, match=message):
        modalflow.Worker(**wrong)


def test_the_package_itself_imports_nothing() -> None:
    """A container imports the package before its first input, so its names are there when they are used."""
    assert modalflow.Profile is Profile
    assert {"Worker", "Profile", "airflow_image", "modal_config"} <= set(dir(modalflow))
    stub = Path(modalflow.__file__).with_suffix(".pyi").read_text()
    assert all(f"import {name} as {name}" in stub for name in vars(modalflow)["_WHERE"])
    with pytest.raises(AttributeError, match="no attribute 'Wroker'"):
        modalflow.Wroker  # type: ignore[attr-defined]  # noqa: B018
