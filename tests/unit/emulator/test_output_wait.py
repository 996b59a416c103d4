"""What a client that waits for outputs is told, while inputs and outputs come."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from modalflow.emulator.calls.output_wait import OutputWait


@dataclass
class Input:
    idx: int
    done: bool = False
    place: int = -1


@dataclass
class Output:
    idx: int


@dataclass
class Call:
    inputs: dict[str, Input] = field(default_factory=dict)
    by_idx: list[Input] | None = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    cleared: set[int] = field(default_factory=set)


BOUND = st.none() | st.integers(0, 5)
STEPS = st.lists(st.sampled_from(["put", "put again", "finish", "clear", "look"]) | st.integers(0, 5), max_size=40)


@given(after=st.integers(0, 3), first=BOUND, last=BOUND, steps=STEPS)
def test_it_finds_what_a_look_at_everything_finds(
    after: int, first: int | None, last: int | None, steps: list[str | int]
) -> None:
    """However inputs, outputs and clearing come between two looks, nothing is missed and nothing told twice."""
    call = Call()
    awaited = OutputWait(call, after, first, last)

    def within(idx: int) -> bool:
        return (first is None or idx >= first) and (last is None or idx <= last)

    for step in [*steps, "look"]:
        match step:
            case "put":
                new = call.inputs[str(len(call.inputs))] = Input(len(call.inputs))
                if call.by_idx is not None:
                    call.by_idx.append(new)
            case "put again":
                # A client that numbers its inputs in its own way.
                call.inputs[str(len(call.inputs))], call.by_idx = Input(0), None
            case "finish":
                for item in [i for i in call.inputs.values() if not i.done][:1]:
                    item.done, item.place = True, len(call.outputs)
                    call.outputs.append(Output(item.idx))
            case "clear":
                call.cleared.update(range(len(call.outputs) - 1, len(call.outputs)))
            case "look":
                expected = [
                    p for p in range(after, len(call.outputs)) if p not in call.cleared and within(call.outputs[p].idx)
                ]
                pending = any(not i.done for i in call.inputs.values() if within(i.idx))
                settled = first is not None and bool(call.inputs) and not pending
                assert awaited.is_over() == (bool(expected) or settled)
                assert awaited.places() == expected
            case int(number):
                for item in [i for i in call.inputs.values() if not i.done and i.idx == number]:
                    item.done, item.place = True, len(call.outputs)
                    call.outputs.append(Output(item.idx))
