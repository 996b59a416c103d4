"""The first line of a log."""

from __future__ import annotations

from typing import Any

from modalflow.worker.logs.first_line import first_line


def test_it_says_where_a_task_runs_and_with_what() -> None:
    """Profile, resources, region and the page in Modal's dashboard can be read, and are fields of their own."""
    text, fields = first_line(
        function_call_id="fc-1",
        profile="big",
        resources={"cpu": [2.0, 4.0], "memory": 2048, "gpu": "H100:2", "timeout": 60},
        environ={"MODAL_REGION": "us-east-1", "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_AWS"},
    )
    assert text == (
        "Started on Modal, profile big: 2 to 4 cores, 2048 MiB, gpu H100:2, in us-east-1 (aws). https://modal.com/id/fc-1"
    )
    assert fields == {
        "cpu": [2.0, 4.0],
        "memory": 2048,
        "gpu": "H100:2",
        "region": "us-east-1",
        "cloud": "aws",
        "dashboard": "https://modal.com/id/fc-1",
    }


def test_a_local_control_plane_has_no_dashboard() -> None:
    """There is no page to link to, and none is made up."""
    environ = {"MODAL_REGION": "local", "MODAL_CLOUD_PROVIDER": "CLOUD_PROVIDER_LOCAL"}
    text, fields = first_line(function_call_id="fc-1", profile="default", resources={}, environ=environ)
    assert (text, fields) == ("Started on Modal, profile default, on a local control plane", {})


def test_what_modal_does_not_tell_is_left_out() -> None:
    """Without region and cloud there is still the link."""
    text, fields = first_line(function_call_id="fc-1", profile="default", resources={"cpu": 0.5}, environ={})
    assert text == "Started on Modal, profile default: 0.5 cores. https://modal.com/id/fc-1"
    assert fields == {"cpu": 0.5, "dashboard": "https://modal.com/id/fc-1"}


def test_it_says_from_how_many_runs_a_size_follows() -> None:
    """A task that sizes itself; one without a history has what its profile has, and that needs no more words."""
    sized = {"memory": 14, "cpu": 1}
    resources: dict[str, Any] = {"cpu": 2.0, "memory": 2048}
    text, fields = first_line(function_call_id="fc-1", profile="p", resources=resources, environ={}, sized=sized)
    assert text.startswith("Started on Modal, profile p: 2 cores, from 1 run, 2 GiB, from 14 runs. ")
    assert fields["memory"] == 2048
    resources |= {"memory": [512, 2048]}
    text, _ = first_line(function_call_id="fc-1", profile="p", resources=resources, environ={}, sized={"memory": 2})
    assert "2 cores, 512 to 2048 MiB, from 2 runs." in text
    text, _ = first_line(function_call_id="fc-1", profile="p", resources=resources, environ={}, sized={"memory": 0})
    assert "512 to 2048 MiB. " in text
