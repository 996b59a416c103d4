"""An app whose functions tell how often they ran, and wait to be let go on. Runs in containers."""

import os
import time
from collections.abc import Iterator

import modal

app = modal.App("restart")


def tell(marker: str, what: str) -> modal.Dict:
    """Note that this input runs here."""
    notes = modal.Dict.from_name(marker, create_if_missing=True)
    notes[f"{what} {modal.current_input_id()} {os.environ['MODAL_TASK_ID']}"] = True
    return notes


def wait_for(notes: modal.Dict, gate: str) -> None:
    while not notes.get(gate):
        time.sleep(0.05)


@app.function()
def double(marker: str, number: int, gate: str = "") -> int:
    notes = tell(marker, f"double {number}")
    print(f"doubling {number}")
    if gate:
        wait_for(notes, gate)
    return 2 * number


@app.function(max_containers=1, timeout=20)
def in_turn(marker: str, number: int, gate: str = "") -> int:
    notes = tell(marker, f"in_turn {number}")
    order = f"order {modal.current_input_id()}"
    notes[order] = number
    if gate:
        wait_for(notes, gate)
    return number


@app.function()
def count(marker: str, up_to: int, stop_at: int) -> Iterator[int]:
    notes = tell(marker, "count")
    notes["call"] = modal.current_function_call_id()
    for number in range(up_to):
        if number == stop_at:
            wait_for(notes, "go on")
        yield number


@app.function()
def variable(name: str) -> str:
    return os.environ[name]


@app.function(min_containers=1)
def kept_ready() -> str:
    return os.environ["MODAL_TASK_ID"]


@app.cls()
class Adder:
    start: int = modal.parameter(default=0)

    @modal.method()
    def add(self, marker: str, number: int, gate: str = "") -> int:
        notes = tell(marker, f"add {number}")
        if gate:
            wait_for(notes, gate)
        return self.start + number
