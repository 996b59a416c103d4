"""What this machine has for containers."""

from __future__ import annotations

import pytest
from modal_proto import api_pb2

from modalflow.emulator.containers.capacity import Capacity, Need, read_gpus


def capacity(**has: object) -> Capacity:
    return Capacity(**{"cores": 4.0, "memory_mib": 1000, "containers": 10, **has})  # type: ignore[arg-type]


def test_what_is_taken_is_an_obstacle_until_it_is_given_back() -> None:
    """Cores and memory are occupied as asked for, and the obstacle names what is lacking and who has it."""
    machine = capacity()
    machine.assign("ta-1", Need(cores=3, memory_mib=900), "train")
    assert machine.obstacle(Need(cores=2)) == "2 cores: 3 of 4 are in use by train"
    assert machine.obstacle(Need(memory_mib=200)) == "200 MiB of memory: 900 of 1000 are in use by train"
    assert not machine.obstacle(Need(cores=1, memory_mib=100))
    machine.release("ta-1")
    assert not machine.obstacle(Need(cores=4, memory_mib=1000))


def test_who_asks_for_nothing_takes_what_is_left() -> None:
    """A function without cpu and memory of its own is limited by the number of containers alone."""
    machine = capacity(cores=0.5, containers=2)
    machine.assign("ta-1", Need(cores=0.5), "a")
    machine.assign("ta-2", Need(), "b")
    assert machine.obstacle(Need()) == "a container: 2 of 2 are in use by a, b"


def test_who_asks_for_more_than_there_is_gets_all() -> None:
    """Eight cores on a machine of four are its four, and that is said, instead of a wait for ever."""
    machine, need = capacity(), Need(cores=8, memory_mib=5000)
    assert machine.notes(need) == [
        "asks for 8 cores and gets all 4",
        "asks for 5000 MiB of memory and gets all 1000",
    ]
    machine.assign("ta-1", need, "big")
    assert machine.obstacle(Need(cores=0.1))


def test_each_gpu_is_given_once() -> None:
    """GPUs are counted by type; a container has certain ones of them, and any type will do where any is asked for."""
    machine = capacity(gpus={"H100": 2, "T4": 1})
    assert machine.assign("ta-1", Need(gpu="H100", gpus=1), "a").devices == (0,)
    assert machine.assign("ta-2", Need(gpu="ANY", gpus=1), "b").devices == (1,)
    assert machine.assign("ta-3", Need(gpu="ANY", gpus=1), "b").devices == (2,)
    assert machine.obstacle(Need(gpu="H100", gpus=1)) == "1 H100: 2 of 2 are in use by a, b"
    machine.release("ta-1")
    assert machine.assign("ta-4", Need(gpu="H100", gpus=1), "a").devices == (0,)


def test_a_gpu_that_was_not_declared_is_impossible() -> None:
    """Where GPUs are declared, asking for others says so and how to declare them; where none are, all run without."""
    declared = capacity(gpus={"H100": 2})
    assert "declared: H100=2); declare it with --gpu A100=1" in declared.impossible(Need(gpu="A100", gpus=1))
    assert declared.impossible(Need(gpu="H100", gpus=4))
    assert not declared.impossible(Need(gpu="H100", gpus=2))
    free = capacity()
    assert not free.impossible(Need(gpu="A100", gpus=8))
    assert not free.obstacle(Need(gpu="A100", gpus=8))
    assert "runs without: no GPU is declared here" in free.notes(Need(gpu="A100", gpus=8))[0]


@pytest.mark.parametrize(
    ("resources", "need"),
    [
        (api_pb2.Resources(), Need()),
        (api_pb2.Resources(milli_cpu=1500, memory_mb=512), Need(cores=1.5, memory_mib=512)),
        (api_pb2.Resources(gpu_config=api_pb2.GPUConfig(gpu_type="H100!", count=2)), Need(gpu="H100", gpus=2)),
        (api_pb2.Resources(gpu_config=api_pb2.GPUConfig(gpu_type="a100-80gb")), Need(gpu="A100-80GB", gpus=1)),
        (api_pb2.Resources(gpu_config=api_pb2.GPUConfig(type=api_pb2.GPU_TYPE_A100_80GB)), Need(0, 0, 1, "A100-80GB")),
    ],
)
def test_needs_are_read_from_definitions(resources: api_pb2.Resources, need: Need) -> None:
    """A definition's resources, as clients of all versions write them, are one need."""
    assert Need.of(resources) == need


def test_declarations() -> None:
    """``H100=2`` is two, ``t4`` is one, and anything else is refused with an example."""
    assert read_gpus(["H100=2", "t4", "H100"]) == {"H100": 3, "T4": 1}
    for wrong in ("=2", "H100=", "H100=0", "H100=many"):
        with pytest.raises(ValueError, match="expected a type and a number"):
            read_gpus([wrong])
