"""A control plane whose handlers fail leaves nobody waiting: neither the SDK, nor containers, nor their callers."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import modal
import pytest

from modalflow.emulator.control_plane.control_plane import ControlPlane
from modalflow.emulator.options import Options
from tests.sdk import client_of

#: Without these nothing runs at all: one kind of call shows it.
OF_CONTAINERS = {"FunctionPutOutputs", "FunctionGetInputs", "ContainerHello"}

#: Seconds for an error to arrive, on a machine that does other things: containers have three tries to start.
SOON = 30.0


class InProcess:
    """A control plane on a thread of this process, whose handlers can be replaced."""

    def __init__(self) -> None:
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="control-plane")
        self._thread.start()
        assert self._ready.wait(30)

    async def _serve(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        self.plane = ControlPlane(Options())
        await self.plane.start()
        self._ready.set()
        await self._over.wait()
        await self.plane.close()

    def break_handler(self, name: str) -> Callable[[], None]:
        """Let a handler raise from now on; return the function that repairs it."""
        handlers = self.plane.parts.front.handlers._by_name
        handler = handlers[name]

        async def unary(*_: Any) -> Any:
            raise ValueError("broken on purpose")

        async def stream(*_: Any) -> AsyncIterator[Any]:
            for _each in (1,):
                raise ValueError("broken on purpose")
            yield

        handlers[name] = dataclasses.replace(handler, method=stream if handler.is_stream else unary)
        return lambda: handlers.__setitem__(name, handler)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)


@pytest.fixture(scope="module")
def broken() -> Iterator[InProcess]:
    made = InProcess()
    yield made
    made.close()


@pytest.fixture(scope="module")
def client(broken: InProcess) -> Iterator[modal.Client]:
    credentials = broken.plane.parts.base.credentials
    token = {"MODAL_TOKEN_ID": credentials.token_id, "MODAL_TOKEN_SECRET": credentials.token_secret}
    with client_of(broken.plane.url, token) as connected:
        yield connected


def bodies() -> tuple[Callable[[int], int], Callable[[int], Iterator[int]]]:
    """Functions of no module: containers get them by their code."""

    def double(number: int) -> int:
        return 2 * number

    def numbers(count: int) -> Iterator[int]:
        yield from range(count)

    return double, numbers


@pytest.mark.parametrize(
    ("rpc", "fails"),
    [
        ("FunctionMap", ("remote", "map", "generator")),
        ("FunctionPutInputs", ("map",)),
        ("FunctionGetOutputs", ("remote", "map", "generator")),
        ("FunctionPutOutputs", ("remote", "map")),
        ("FunctionGetInputs", ("remote",)),
        ("ContainerHello", ("generator",)),
        ("ContainerHeartbeat", ()),
        ("FunctionCallPutDataOut", ("generator",)),
        ("FunctionCallGetDataOut", ("generator",)),
        ("AppGetLogs", ()),
    ],
)
def test_a_call_ends_whichever_handler_fails(
    broken: InProcess, client: modal.Client, rpc: str, fails: tuple[str, ...]
) -> None:
    """Calls, maps and generators fail soon, or do not need the handler; with it mended, the same calls work."""
    app = modal.App()
    double, numbers = bodies()
    function = app.function(serialized=True, name="double")(double)
    generator = app.function(serialized=True, name="numbers")(numbers)
    calls: dict[str, Callable[[], Any]] = {
        "remote": lambda: function.remote(1),
        "map": lambda: list(function.map([1, 2])),
        "generator": lambda: list(generator.remote_gen(2)),
    }
    results = {"remote": 2, "map": [2, 4], "generator": [0, 1]}
    with app.run(client=client):
        mend = broken.break_handler(rpc)
        try:
            for kind, call in calls.items():
                began = time.monotonic()
                if kind in fails:
                    with pytest.raises(modal.exception.Error):
                        call()
                elif rpc not in OF_CONTAINERS:
                    assert call() == results[kind]
                assert time.monotonic() - began < SOON
        finally:
            mend()
        assert {kind: call() for kind, call in calls.items()} == results


@pytest.mark.parametrize("rpc", ["ImageGetOrCreate", "ImageJoinStreaming"])
def test_a_build_ends_whichever_handler_fails(broken: InProcess, client: modal.Client, rpc: str) -> None:
    """The SDK raises what failed within seconds; with the handler mended, the same image is built."""
    image = modal.Image.debian_slim().run_commands(f"echo {rpc}")
    mend = broken.break_handler(rpc)
    began = time.monotonic()
    try:
        with pytest.raises(modal.exception.Error, match=f"{rpc} failed in the local control plane: ValueError: broken"):
            _build(image, client)
    finally:
        mend()
    assert time.monotonic() - began < SOON
    _build(image, client)


def _build(image: modal.Image, client: modal.Client) -> None:
    app = modal.App()
    with app.run(client=client):
        image.build(app)
