"""An app whose functions are called in every way that the SDK has. Runs in containers."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import modal

app = modal.App("maps")


class Own(Exception):
    """An exception that only those who have this module can read."""


@app.function(max_containers=2)
@modal.concurrent(max_inputs=50)
async def square(n: int) -> int:
    if n < 0:
        raise ValueError(f"{n} is negative")
    return n * n


@app.function(max_containers=2)
@modal.concurrent(max_inputs=10)
async def weighed(a: int, b: int, *, weight: int = 1) -> int:
    # The sooner an input comes the later its result.
    await asyncio.sleep(0.3 if a == 0 else 0)
    return (a + b) * weight


@app.function(max_containers=1, retries=modal.Retries(max_retries=1, initial_delay=0.0))
def fails_the_first_time(n: int, notes: str) -> int:
    """Odd numbers fail the first time, multiples of ten each time."""
    tries = modal.Dict.from_name(notes)
    tries[n] = tries.get(n, 0) + 1
    if n % 10 == 0 or (n % 2 and tries[n] == 1):
        raise ValueError(f"{n} failed, try {tries[n]}")
    return n


@app.function()
def yields(up_to: int, fail: bool = False) -> Iterator[Any]:
    yield from range(up_to)
    if fail:
        raise ValueError(f"after {up_to}")


@app.function()
async def yields_async(up_to: int, size: int = 0) -> AsyncIterator[Any]:
    for n in range(up_to):
        await asyncio.sleep(0)
        yield bytes(size) if size else n


@app.function(max_containers=1)
def echo(data: Any) -> Any:
    return data


@app.function(max_containers=1)
def returns(what: str) -> Any:
    if what == "a lock":
        return threading.Lock()
    if what == "an exception":
        return ValueError("only returned")
    if what == "a foreign object":
        return type("Foreign", (), {})
    return None


@app.function(max_containers=1)
def raises(what: str) -> None:
    if what == "own":
        raise Own("mine", 3)
    if what == "unserialisable":
        error = ValueError("holds a lock")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error
    if what == "chained":
        try:
            _deeper({}, "no such key")
        except KeyError as error:
            raise ValueError("from another") from error
    if what == "exit":
        raise SystemExit(3)


def _deeper(values: dict[str, str], key: str) -> str:
    return values[key]


@app.function()
def about_itself() -> dict[str, Any]:
    return {
        "is_local": modal.is_local(),
        "call": modal.current_function_call_id(),
        "input": modal.current_input_id(),
        "container": os.environ["MODAL_TASK_ID"],
    }


@app.function()
def calls_others(own_app: str) -> dict[str, Any]:
    """Use the app from inside, by its handles and by its name."""
    looked_up = modal.Function.from_name(own_app, "square")
    scaled = modal.Cls.from_name(own_app, "Scaled")
    spawned = [square.spawn(n) for n in range(3)]
    try:
        raised = f"nothing, but returned {square.remote(-1)}"
    except ValueError as error:
        raised = str(error)
    return {
        "remote": looked_up.remote(5),
        "map": list(square.map(range(10))),
        "generator": list(yields.remote_gen(3)),
        "gather": list(modal.FunctionCall.gather(*spawned)),
        "method": scaled(factor=3).times.remote(4),
        "raised": raised,
        "call": spawned[0].object_id,
    }


@app.function()
async def calls_others_async() -> list[int]:
    results = [n async for n in square.map.aio(range(5), order_outputs=True)]
    call = await square.spawn.aio(9)
    return [*results, await call.get.aio()]


@app.cls(max_containers=2)
class Scaled:
    factor: int = modal.parameter(default=1)
    name: str = modal.parameter(default="")

    @modal.enter()
    def begin(self) -> None:
        self.served: list[int] = []
        self.together = 0

    @modal.method()
    def times(self, n: int) -> int:
        self.served.append(n)
        return n * self.factor

    @modal.method()
    def state(self) -> tuple[str, list[int], str]:
        return self.name, self.served, os.environ.get("SCALED", "")

    @modal.method()
    def multiples(self, up_to: int) -> Iterator[int]:
        for n in range(up_to):
            yield n * self.factor

    @modal.method()
    async def most_at_once(self, parties: int) -> int:
        """Wait until that many inputs are here, or for as long as nobody would wait."""
        self.together += 1
        for _ in range(1000):
            if self.together >= parties:
                break
            await asyncio.sleep(0.01)
        return self.together


@app.cls(max_containers=1)
class Batches:
    @modal.batched(max_batch_size=2, wait_ms=200)
    async def sizes(self, numbers: list[int]) -> list[tuple[int, int]]:
        return [(n, len(numbers)) for n in numbers]
