"""The app of another team, whose Functions DAGs call. Runs in containers."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import modal

app = modal.App("called")


@app.function(cpu=2, memory=4096)
def add(a: int, b: int = 0) -> dict[str, Any]:
    return {"sum": a + b, "pair": (a, b)}


@app.function()
def echo(value: Any) -> Any:
    return value


@app.function()
def fail(message: str) -> None:
    raise ValueError(message)


UNUSABLE = {
    "date": {"at": [datetime(2026, 1, 1, tzinfo=UTC)]},
    "key": {1: 2},
    "bytes": {"a": [b""]},
    "nan": float("nan"),
    "long": "x" * 100,
}


@app.function()
def unusable(kind: str) -> Any:
    return UNUSABLE[kind]


@app.function()
def sleep(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@app.function(timeout=1)
def overtime() -> None:
    time.sleep(60)


@app.function()
def count(end: int) -> Iterator[int]:
    yield from range(end)


@app.function()
def gated(gate: str) -> str:
    """Return once the Dict has a value under "open"."""
    opened = modal.Dict.from_name(gate)
    while (value := opened.get("open")) is None:
        time.sleep(0.05)
    return str(value)


@app.function(max_containers=1)
@modal.concurrent(max_inputs=1)
def line(seconds: float) -> None:
    time.sleep(seconds)


@app.cls()
class Greeter:
    greeting: str = modal.parameter(default="Hello")

    @modal.method()
    def greet(self, name: str) -> str:
        return f"{self.greeting}, {name}"
