"""Where a request goes: which profile, with which options, and how many sets of them there may be."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from modalflow.cost.history import Run
from modalflow.errors import WorkloadRejectedError
from modalflow.executor.mailbox import SubmitRequest
from modalflow.executor.submission.placement import COUNTS_FOR, OptionSets, Place, Placement, Routing
from modalflow.executor.submission.resources import read_executor_config
from modalflow.executor.submission.sizing import Known
from modalflow.protocol.messages import Deployment, Kind, Submission
from modalflow.protocol.shortage import Shortage
from tests.support import Clock

DEPLOYMENT = Deployment(
    "1",
    1,
    "3.3.1",
    "3.12",
    ("default", "gpu"),
    {},
    1.0,
    granted={
        "default": {"concurrency": 4, "cpu": 1.0},
        "gpu": {"gpu": "H100", "memory": [4096, 8192], "concurrency": 1},
    },
)
SUBMISSION = Submission("w", Kind.COMMAND, "log", "p", "label")


def placed(queue: str | None = None, *, routing: Routing | None = None, most: int = 0, **wanted: Any) -> Place:
    placement = Placement(routing or Routing(), OptionSets(most, Clock()))
    return placement.place(request(queue, **wanted), DEPLOYMENT)


def request(queue: str | None = None, **wanted: Any) -> SubmitRequest:
    wanted_by_task = read_executor_config({"modal": wanted})
    terms = wanted_by_task.terms
    return SubmitRequest("key", SUBMISSION, wanted_by_task.resources, queue, wanted_by_task.profile, terms=terms)


@pytest.mark.parametrize(
    ("queue", "wanted", "profile"),
    [
        (None, {}, "default"),
        ("default", {}, "default"),
        ("gpu", {}, "gpu"),
        ("default", {"profile": "gpu"}, "gpu"),
        ("gpu", {"profile": "default"}, "default"),
        ("renamed", {}, "default"),
        ("big", {}, "gpu"),
    ],
)
def test_the_queue_picks_the_profile_and_the_task_may_pick_another(
    queue: str | None, wanted: dict[str, Any], profile: str
) -> None:
    """Airflow's default queue, whatever it is called, is `default`; the option `queues` maps others."""
    routing = Routing({"big": "gpu"}, default_queue="renamed")
    assert placed(queue, routing=routing, **wanted).profile == profile


@pytest.mark.parametrize(
    ("queue", "wanted", "parts"),
    [
        ("gpus", {}, ("Queue 'gpus' has no profile", "deployed profiles: default, gpu", "[modal_executor] queues")),
        ("gpu", {"profile": "tpu"}, ("Profile 'tpu' is not deployed", "deployed profiles: default, gpu")),
        ("odd", {}, ("queues sends queue 'odd' to profile 'gone'",)),
    ],
)
def test_what_has_no_profile_is_turned_away(queue: str, wanted: dict[str, Any], parts: tuple[str, ...]) -> None:
    """A queue that was named on purpose never means `default`; the reason lists the profiles and the way to mend it."""
    with pytest.raises(WorkloadRejectedError) as raised:
        placed(queue, routing=Routing({"odd": "gone"}), **wanted)
    assert all(part in str(raised.value) for part in parts)


def test_any_other_queue_may_have_a_profile() -> None:
    """`*` in the option `queues` is every queue that has none."""
    assert placed("gpus", routing=Routing({"*": "default"})).profile == "default"


def test_what_a_profile_grants_anyway_is_no_option() -> None:
    """It would be a container pool of its own beside a warm one that has the same."""
    assert not placed("gpu", gpu="h100:1", memory=("4GiB", 8192)).options.options
    assert placed("gpu", gpu="H200").options.plain() == {"gpu": "H200"}


def test_a_submission_carries_what_its_task_is_granted() -> None:
    """The profile's, and above that the task's own; who asks for cores, memory or a GPU shares it with nobody."""
    assert placed().granted == {"concurrency": 4, "cpu": 1.0}
    assert placed(memory=512, region="eu").granted == {"concurrency": 1, "cpu": 1.0, "memory": 512, "region": "eu"}
    assert placed(region="eu", secrets=["aws"]).granted == {"concurrency": 4, "cpu": 1.0, "region": "eu"}


def test_an_unknown_gpu_is_a_warning() -> None:
    """Modal may have learnt of new ones: it decides, and the user is told what looks like a slip."""
    assert "did you mean 'H100'" in placed(gpu="H10").warning
    assert not placed(gpu="H200:8").warning


class TestOptionSets:
    """The bound on distinct sets."""

    def test_a_set_too_many_is_turned_away_with_those_that_are_asked_for_most(self) -> None:
        """Known sets still go, and so does what asks for nothing; the reason names sets and setting."""
        placement = Placement(Routing(), OptionSets(2, Clock()))
        for wanted in (request(memory=512), request(memory=512), request(memory=1024), request()):
            placement.place(wanted, DEPLOYMENT)
        with pytest.raises(WorkloadRejectedError) as raised:
            placement.place(request(memory=2048), DEPLOYMENT)
        assert "memory=512 (2 times); memory=1024 (1 times)" in str(raised.value)
        assert "max_option_sets = 2" in str(raised.value)
        placement.place(request(memory=1024), DEPLOYMENT)
        placement.place(request("gpu", memory=2048), DEPLOYMENT)

    def test_a_set_counts_for_an_hour(self) -> None:
        """A scheduler that runs for months turns nothing away for what last year's DAGs asked for."""
        clock = Clock()
        placement = Placement(Routing(), OptionSets(1, clock))
        placement.place(request(memory=512), DEPLOYMENT)
        clock.now += COUNTS_FOR + 1
        placement.place(request(memory=1024), DEPLOYMENT)

    def test_any_number(self) -> None:
        """0 sets no bound."""
        placement = Placement(Routing(), OptionSets(0, Clock()))
        for n in range(100):
            placement.place(request(memory=512 + n), DEPLOYMENT)


@pytest.mark.parametrize("path", ["/vol", "/vol/", "/vol/logs", "/vol/logs/x", "/old/dags"])
def test_a_volume_does_not_hide_what_the_deployed_worker_has(path: str) -> None:
    """A worker of an older version has its files where the newest one has none, and they are as reserved."""
    deployed = dataclasses.replace(DEPLOYMENT, volumes={"/vol/logs": "modalflow-logs"}, bundles={"d": "/old/dags/d"})
    placement = Placement(Routing(), OptionSets(0, Clock()))
    with pytest.raises(WorkloadRejectedError, match="the deployed worker has"):
        placement.place(request(volumes={path: "data"}), deployed)
    assert placement.place(request(volumes={"/data": "data"}), deployed)
    assert placement.place(request(volumes={"/vol": "data"}), DEPLOYMENT)


def test_the_logs_volume_is_not_mounted_twice() -> None:
    """Modal refuses it in words that name neither the task nor what to do."""
    deployed = dataclasses.replace(DEPLOYMENT, volumes={"/opt/modalflow/logs": "modalflow-logs"})
    with pytest.raises(WorkloadRejectedError, match="'modalflow-logs' is modalflow's own"):
        Placement(Routing(), OptionSets(0, Clock())).place(request(volumes={"/data": "modalflow-logs"}), deployed)


AUTOMATIC = dataclasses.replace(DEPLOYMENT, granted={"default": {"concurrency": 4, "memory": "auto"}})


def automatic(placement: Placement, used: float = 0.0, *, had: float = 0.0, **wanted: Any) -> Place:
    """Place a task that sizes itself, whose one run has used so much memory."""
    asked = request(**wanted)
    terms = placement.terms(asked, AUTOMATIC)
    assert terms is not None
    runs = (Run(1.0, "success", 1.0, used, 0.0, None),) if used else ()
    return placement.place(asked, AUTOMATIC, terms, Known(runs, Shortage(memory_mib=had)))


def test_a_task_without_growth_has_no_terms() -> None:
    """Most tasks: they are placed without another question."""
    placement = Placement(Routing(), OptionSets(0, Clock()))
    assert placement.terms(request("gpu", memory=512, timeout=60), DEPLOYMENT) is None
    assert placement.terms(request(), None) is None
    assert placement.terms(request("gpu", memory_growth=2), DEPLOYMENT) is not None
    assert placement.terms(request(), AUTOMATIC) is not None


def test_tasks_that_size_themselves_share_pools() -> None:
    """Use that differs a little leads to one set of options. What their profile has is for the executor alone."""
    placement = Placement(Routing(), OptionSets(1, Clock()))
    places = [automatic(placement, used) for used in (500, 550, 600)]
    assert {place.options.plain()["memory"] for place in places} == {768}
    assert places[0].granted == {"concurrency": 1, "memory": 768}
    assert automatic(placement).granted == {"concurrency": 4}


def test_the_limit_on_sets_of_options_holds_for_tasks_that_size_themselves() -> None:
    """One set too many: the next larger one in use, or the profile's own size and a warning. None is rejected."""
    placement = Placement(Routing(), OptionSets(2, Clock()))
    assert [automatic(placement, used).options.plain()["memory"] for used in (3000, 1500)] == [4096, 2048]
    third = automatic(placement, 1000)
    assert third.options.plain()["memory"] == 2048 and not third.warning and third.sized == {"memory": 1}
    fourth = automatic(placement, 8000)
    assert not fourth.options.options and "could not be sized by its last runs" in fourth.warning
    assert "max_option_sets = 2" in fourth.warning


def test_a_larger_set_is_the_same_in_all_else() -> None:
    """Another GPU, or a lower limit of memory, is none that a task can have instead."""
    placement = Placement(Routing(), OptionSets(3, Clock()))
    placed_before: list[dict[str, Any]] = [{"memory": 8192, "gpu": "T4"}, {"memory": (128, 4096)}, {"cpu": 4}]
    for wanted in placed_before:
        placement.place(request(**wanted), AUTOMATIC)
    assert not automatic(placement, 3000).options.options
    with pytest.raises(WorkloadRejectedError, match="max_option_sets"):
        automatic(placement, 3000, had=4096)
