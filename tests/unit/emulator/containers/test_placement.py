"""Which container may start, and who makes way."""

from __future__ import annotations

from modal_proto import api_pb2

from modalflow.emulator.apps.app import App
from modalflow.emulator.containers import placement as placing_module
from modalflow.emulator.containers.capacity import Capacity, Need
from modalflow.emulator.containers.container import Container, State
from modalflow.emulator.containers.placement import Placement
from modalflow.emulator.functions.function import Function
from tests.support import Clock
from tests.unit.emulator.parts import Notes


class Machine:
    """A Placing with containers that start and end when the test says so."""

    def __init__(self, cores: float = 4.0, containers: int = 10, gpus: dict[str, int] | None = None) -> None:
        self.clock = Clock()
        log = Notes()
        self.notes = log.texts
        self.placement = Placement(Capacity(cores, 1000, containers, gpus), log, clock=self.clock)
        self.living: list[Container] = []

    def start(self, function: Function, *, busy: bool = False) -> Container | None:
        need = self.placement.fitting(function)
        if need is None:
            return None
        container = Container(function)
        container.state = State.READY
        if busy:
            container.inputs["in-1"] = object()  # type: ignore[assignment]
        self.placement.assign(container, need)
        self.living.append(container)
        return container

    def end(self, container: Container) -> None:
        self.living.remove(container)
        self.placement.release(container)


def make_function(tag: str, cores: float = 0.0, gpus: tuple[str, ...] = ()) -> Function:
    wanted = [
        api_pb2.Resources(milli_cpu=int(cores * 1000), gpu_config=api_pb2.GPUConfig(gpu_type=gpu, count=1))
        for gpu in gpus or ("",)
    ]
    function = Function(
        app=App(environment="main", description="app", state=api_pb2.APP_STATE_DEPLOYED),
        tag=tag,
        definition=api_pb2.Function(resources=wanted[0]),
        fallbacks=wanted[1:],
    )
    function.revision = 1
    return function


def test_who_waits_reads_for_what_and_once() -> None:
    """A wait of some seconds is told in the function's log, with what is lacking and who has it."""
    machine, train, load = Machine(cores=2), make_function("train", 2), make_function("load", 1)
    first = machine.start(train)
    assert first is not None
    assert machine.start(load) is None
    machine.placement.log_waits()
    assert machine.notes == []
    machine.clock.now += placing_module.LOG_AFTER
    machine.placement.log_waits()
    machine.placement.log_waits()
    assert machine.notes == ["load waits for 1 cores: 2 of 2 are in use by train"]
    assert machine.placement.waits_for(load)
    machine.end(first)
    assert machine.start(load) is not None
    assert not machine.placement.waits_for(load)


def test_idle_containers_make_way_and_no_more_than_needed() -> None:
    """The longest idle go first, only those that free what is lacking, and nobody goes where it would not help."""
    machine = Machine(cores=4, gpus={"T4": 1})
    small, other, big = make_function("small", 1), make_function("other"), make_function("big", 3)
    idle = [machine.start(small), machine.start(other), machine.start(small), machine.start(small)]
    for age, container in enumerate(idle):
        assert container is not None
        container.idle_since = float(age)
    assert machine.start(big) is None
    assert machine.placement.blocking(big, machine.living) == [idle[0], idle[2]]
    idle[0].retire()  # type: ignore[union-attr]
    idle[2].retire()  # type: ignore[union-attr]
    assert machine.placement.blocking(big, machine.living) == []


def test_a_busy_container_makes_way_for_the_first_of_another_function() -> None:
    """A function that has all there is gives one container, after its input, to one that has none; one with a single
    container keeps it."""
    machine = Machine(containers=3)
    many, one, new = make_function("many"), make_function("one"), make_function("new")
    first, last = machine.start(many, busy=True), machine.start(many, busy=True)
    assert first is not None and last is not None
    assert machine.start(one, busy=True) is not None
    assert machine.start(new) is None
    assert machine.placement.blocking(new, machine.living) == [last]
    last.retire()
    machine.end(last)
    assert machine.start(new, busy=True) is not None
    assert machine.start(many) is None
    assert machine.placement.blocking(many, machine.living) == []


def test_nobody_is_overtaken_for_ever() -> None:
    """After a while what a waiting function wants is given to nobody else: a big one is not starved by small ones."""
    machine = Machine(cores=4)
    small, big, free = make_function("small", 1), make_function("big", 4), make_function("free")
    running = machine.start(small, busy=True)
    assert running is not None
    assert machine.start(big) is None
    assert machine.start(small, busy=True) is not None
    machine.clock.now += placing_module.PATIENCE
    assert machine.start(small, busy=True) is None
    assert machine.placement.waits_for(small).startswith("its turn: big waits longer")
    assert machine.start(free) is not None


def test_the_first_free_gpu_of_a_list_is_taken() -> None:
    """With a list of GPUs the first choice is taken while there is one, then the next; the wait names the first."""
    machine, function = Machine(gpus={"H100": 1, "A100": 1}), make_function("train", gpus=("H100", "A100", "B200"))
    first, second = machine.start(function), machine.start(function)
    assert first is not None and second is not None
    grants = [machine.placement.capacity.grant(c.container_id) for c in (first, second)]
    assert [grant.gpu for grant in grants if grant] == ["H100", "A100"]
    assert machine.start(function) is None
    assert not machine.placement.impossible(function)
    assert machine.placement.impossible(make_function("other", gpus=("B200",)))


def test_options_for_other_resources_end_the_list() -> None:
    """A variant with a GPU of its own does not fall back to those of the definition; one with other options does."""
    function = make_function("train", gpus=("H100", "A100"))
    options = api_pb2.FunctionOptions(resources=api_pb2.Resources(gpu_config=api_pb2.GPUConfig(gpu_type="T4", count=1)))
    variant = Function(app=function.app, tag="train", parent=function, options=options)
    assert placing_module.needs(variant) == [Need(gpu="T4", gpus=1)]
    other = Function(app=function.app, tag="train", parent=function, options=api_pb2.FunctionOptions(timeout_secs=5))
    assert [need.gpu for need in placing_module.needs(other)] == ["H100", "A100"]
