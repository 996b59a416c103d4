"""Rules: when they happen, and that it is the same each time."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from modalflow.emulator.faults.rules import Rule, Rules

RPCS = ["FunctionMap", "QueuePut", "QueueGet", "DictUpdate"]
SPECS = ["*:unavailable,p=0.3", "Queue*:internal,p=0.5,after=2", "*:lost-reply,every=3,p=0.8,count=4"]


def rules(*specs: str, seed: int = 1) -> Rules:
    made = Rules(seed)
    for spec in specs:
        made.add(spec)
    return made


def happened(rule: Rule, subjects: list[str]) -> dict[str, list[tuple[bool, float]]]:
    """By subject, for each of its occasions: whether the rule happened, and a number drawn where it did."""
    found: dict[str, list[tuple[bool, float]]] = {}
    for subject in subjects:
        occurrence = rule.draw(subject)
        found.setdefault(subject, []).append(
            (occurrence is not None, occurrence.random.random() if occurrence else 0.0)
        )
    return found


@given(st.integers(), st.sampled_from(SPECS), st.lists(st.sampled_from(RPCS), max_size=60), st.randoms())
def test_the_same_seed_gives_the_same_faults_whatever_runs_beside(
    seed: int, spec: str, calls: list[str], shuffling: Random
) -> None:
    """What happens at the n-th call of an RPC does not depend on the calls of others, nor on other rules."""
    alone = happened(next(iter(rules(spec, seed=seed))), calls)
    mixed = list(calls)
    shuffling.shuffle(mixed)
    others = rules("*:delay=1ms", spec, "FunctionMap:internal,p=0.5", seed=seed)
    first, same, last = others
    happened(first, calls)
    happened(last, calls)
    assert happened(same, mixed) == alone


def test_another_seed_gives_other_faults() -> None:
    """The seed matters, and so does which of two rules of the same text it is."""
    calls = ["FunctionMap"] * 200
    twice = rules("*:unavailable,p=0.5", "*:unavailable,p=0.5")
    patterns = [happened(rule, calls) for rule in twice]
    patterns.append(happened(next(iter(rules("*:unavailable,p=0.5", seed=2))), calls))
    assert patterns[0] != patterns[1] != patterns[2] != patterns[0]


def test_after_every_and_count() -> None:
    """The first two are skipped, then every third happens, twice; each RPC is counted for itself."""
    rule = next(iter(rules("*:unavailable,after=2,every=3,count=2")))
    calls = ["FunctionMap", "QueuePut"] * 12
    places = {
        rpc: [place for place, (hit, _) in enumerate(seen, 1) if hit] for rpc, seen in happened(rule, calls).items()
    }
    assert places == {"FunctionMap": [3, 6], "QueuePut": [3, 6]}


def test_a_probability_is_one() -> None:
    """Of a thousand calls with p=0.1 about a hundred are concerned."""
    rule = next(iter(rules("*:unavailable,p=0.1")))
    assert 60 < sum(hit for hit, _ in happened(rule, ["FunctionMap"] * 1000)["FunctionMap"]) < 140


def test_what_a_rule_did_can_be_listed() -> None:
    """A report counts what the rule saw and did, and tells the newest of it."""
    made = rules("FunctionMap:unavailable,count=1")
    rule = next(iter(made))
    occurrence = rule.draw("FunctionMap")
    assert occurrence is not None
    assert rule.draw("FunctionMap") is None
    rule.record(occurrence, "UNAVAILABLE")
    report = rule.report()
    assert (report["id"], report["seen"], report["happened"]) == ("f1", 2, 1)
    assert [(each["subject"], each["occasion"], each["what"]) for each in report["last"]] == [
        ("FunctionMap", 1, "UNAVAILABLE")
    ]


def test_rules_can_be_removed_one_by_one() -> None:
    """An unknown id removes nothing at all."""
    made = rules(*SPECS)
    try:
        made.clear(["f1", "f9"])
    except KeyError as error:
        assert error.args == ("f9",)
    assert len(list(made)) == 3
    made.clear(["f2"])
    assert [rule.rule_id for rule in made] == ["f1", "f3"]
    made.clear()
    assert not list(made)
