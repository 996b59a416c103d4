"""Reading specifications, and the words about one that cannot be read."""

from __future__ import annotations

from random import Random

import pytest

from modalflow.emulator.faults.spec.fault_spec import FaultSpecError, parse
from modalflow.emulator.faults.spec.kinds import KINDS
from modalflow.emulator.faults.spec.values import Delay, delay, duration, rate


@pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: f"{kind.scope.value}-{kind.name}")
def test_every_example_can_be_read(kind: object) -> None:
    """The example that stands beside a kind, in errors and in the documents, is one of that kind."""
    assert parse(kind.example).kind is kind  # type: ignore[attr-defined]


def test_a_specification_has_target_kind_value_and_options() -> None:
    """What stands in the text is what the rule goes by."""
    spec = parse("Queue*:resource-exhausted,retry-after=2s,count=5,for=containers")
    assert spec.concerns("QueuePut")
    assert not spec.concerns("DictGet")
    assert spec.options == {"retry-after": 2.0, "count": 5, "for": "containers"}


def test_a_container_is_addressed_by_app_and_function() -> None:
    """An app's name alone means all its functions; a class's tag, which ends in `.*`, can be written as it is."""
    assert parse("container:kill").concerns("etl/load")
    assert parse("container/etl:kill").concerns("etl/load")
    assert not parse("container/etl:kill").concerns("etl2/load")
    assert parse("container/etl/Loader.*:kill").concerns("etl/Loader.*")
    assert not parse("container/etl/load:kill").concerns("etl/unload")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("FunctionMap", "character 1", "expected TARGET:KIND"),
        ("FunctionMap:", "character 1", "expected TARGET:KIND"),
        ("FunctoinMap:unavailable", "character 1", "expected FunctionMap"),
        ("Nonsense:unavailable", "character 1", "an RPC's name"),
        ("FunctionMap:unavailabel", "character 13", "expected unavailable or unavailable-after"),
        ("FunctionMap:delay", "character 13", "needs a duration"),
        ("FunctionMap:delay=80", "character 13", "e.g. 80ms±20ms"),
        ("FunctionMap:delay=-80ms", "character 13", "e.g. 80ms±20ms"),
        ("FunctionMap:unavailable=1", "character 13", "takes no value"),
        ("FunctionMap:unavailable,p=1.5", "character 25", "a probability from 0 to 1"),
        ("FunctionMap:unavailable,count=0", "character 25", "a whole number of 1 or more"),
        ("FunctionMap:unavailable,retry-after=2s", "character 25", "is no option of 'unavailable'"),
        ("FunctionMap:unavailable,p=0.1,p=0.2", "character 25", "is given twice"),
        ("container/etl:kill,at=noon", "character 20", "expected one of input, start, ready, second"),
        ("clock/mine:skew=3s", "character 1", "takes no name"),
    ],
)
def test_an_error_tells_the_place_and_an_example(text: str, place: str, words: str) -> None:
    """Whoever mistypes a fault reads where, what was expected, and one that works."""
    with pytest.raises(FaultSpecError) as caught:
        parse(text)
    said = str(caught.value)
    assert repr(text) in said
    assert words in said
    parse(said.rpartition("For example: ")[2])
    if "is given twice" not in words:
        assert place in said


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("80ms", Delay("fixed", (0.08,))),
        ("80ms±20ms", Delay("uniform", (0.06, 0.1))),
        ("80ms+-20ms", Delay("uniform", (0.06, 0.1))),
        ("uniform(0s, 1.5s)", Delay("uniform", (0.0, 1.5))),
        ("normal(80ms,20ms)", Delay("normal", (0.08, 0.02))),
        ("exponential(2s)", Delay("exponential", (2.0,))),
        ("lognormal(80ms,0.5)", Delay("lognormal", (0.08, 0.5))),
    ],
)
def test_delays_have_distributions(text: str, expected: Delay) -> None:
    """A delay is fixed or drawn from a distribution, and is never negative."""
    found = delay(text)
    assert found.shape == expected.shape
    assert found.numbers == pytest.approx(expected.numbers)
    assert all(found.draw(Random(seed)) >= 0 for seed in range(200))
    assert parse(f"*:delay={text},for=clients").value == found


def test_the_median_of_many_delays_is_what_was_asked_for() -> None:
    """80 ms in the specification is 80 ms in the middle of what is drawn, whatever the distribution."""
    random = Random(1)
    for text in ("80ms±20ms", "normal(80ms,20ms)", "lognormal(80ms,0.5)"):
        drawn = sorted(delay(text).draw(random) for _ in range(2001))
        assert drawn[1000] == pytest.approx(0.08, rel=0.1), text


def test_units() -> None:
    """Durations and rates are in seconds whatever their unit."""
    assert [duration(text) for text in ("250us", "80ms", "1.5s", "2m", "1h", "8d")] == pytest.approx(
        [0.00025, 0.08, 1.5, 120.0, 3600.0, 691200.0]
    )
    assert rate("200/s") == 200.0
    assert rate("30/m") == 0.5
