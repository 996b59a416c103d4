"""The workload of function calls: spawned, followed, cancelled, with containers that die with the control plane."""

from __future__ import annotations

import itertools
from typing import Any

import modal
from modal.exception import RemoteError

from tests.durability.workload import Lost, Workload
from tests.support import wait_until

#: Seconds for all that is left at the end.
DRAIN_SECONDS = 120.0

#: What a call ended with, if not with a result.
CANCELLED = "cancelled"


class CallWorkload(Workload):
    """Spawns of inputs, alone and several at once: each acknowledged one ends once, and ran before it did.

    A run notes itself under a token of its own, and the token is the result: whoever asks twice must read of the same
    run.
    """

    name = "calls"

    def prepare(self) -> None:
        app = modal.App("kills")

        @app.function(serialized=True, name="work", max_containers=2)
        def work(number: int) -> tuple[int, str]:
            import uuid

            import modal

            token = uuid.uuid4().hex
            modal.Dict.from_name("kills-runs")[token] = number
            return number, token

        self.runs = modal.Dict.from_name("kills-runs", create_if_missing=True, client=self.client).hydrate(self.client)
        app.deploy(name="kills", client=self.client)
        self.app = app
        self.function = modal.Function.from_name("kills", "work", client=self.client).hydrate(self.client)
        self.numbers = itertools.count(1)
        self.calls: list[tuple[modal.FunctionCall[Any], list[int]]] = []
        """Of each acknowledged call: its handle and the numbers that its inputs are."""
        self.cancelled: set[str] = set()
        """Calls that may have been cancelled: acknowledged or not."""
        self.ended: dict[tuple[str, int], Any] = {}
        """What was read of an input's end."""

    def step(self) -> None:
        self.rng.choices(
            [self._spawn, self._spawn_several, self._with_options, self._get, self._cancel, self._redeploy],
            [30, 10, 5, 40, 5, 0.5],
        )[0]()

    def check(self) -> None:
        for call, numbers in self.calls[-20:]:
            for index in range(len(numbers)):
                self._look(call, numbers, index)

    def finish(self) -> None:
        def left() -> list[str]:
            for call, numbers in self.calls:
                for index in range(len(numbers)):
                    if (call.object_id, index) not in self.ended:
                        self._look(call, numbers, index)
            done = self.ended
            return [c.object_id for c, ns in self.calls if any((c.object_id, i) not in done for i in range(len(ns)))]

        try:
            wait_until(lambda: not left(), DRAIN_SECONDS, "all calls to end", 0.2)
        except AssertionError:
            self.tell(f"calls that never ended: {left()}")
        for call, numbers in self.calls:
            for index in range(len(numbers)):
                self._look(call, numbers, index)
        runs: dict[str, int] = dict(self.runs.items())
        for (call_id, index), end in self.ended.items():
            if end != CANCELLED and runs.get(end[1]) != end[0]:
                self.tell(f"input {index} of {call_id} ended with {end}, and no such run is known")
        wanted = {number for _, numbers in self.calls for number in numbers}
        more_than_once = len(runs) - len(set(runs.values()))
        print(f"calls: {len(wanted)} inputs, {len(runs)} runs, {more_than_once} of them repeated")

    def _spawn(self, function: modal.Function[..., Any, Any] | None = None) -> None:
        number = next(self.numbers)
        try:
            call = self.ask((function or self.function).spawn, number)
        except Lost:
            return
        self.calls.append((call, [number]))

    def _spawn_several(self) -> None:
        numbers = [next(self.numbers) for _ in range(3)]
        try:
            call = self.ask(self.function.experimental_spawn_map, numbers)
        except Lost:
            return
        self.calls.append((call, numbers))

    def _with_options(self) -> None:
        self._spawn(self.function.with_options(timeout=self.rng.choice([100, 200])))

    def _get(self) -> None:
        if self.calls:
            call, numbers = self.rng.choice(self.calls)
            self._look(call, numbers, self.rng.randrange(len(numbers)))

    def _cancel(self) -> None:
        if self.calls:
            call, _ = self.rng.choice(self.calls[-5:])
            self.cancelled.add(call.object_id)
            try:
                self.ask(call.cancel)
            except Lost:
                return

    def _redeploy(self) -> None:
        try:
            self.ask(self.app.deploy, name="kills", client=self.client)
        except Lost:
            return

    def _look(self, call: modal.FunctionCall[Any], numbers: list[int], index: int) -> None:
        """Read how an input ended, if it has, and compare that with what was read before."""
        known = self.ended.get((call.object_id, index))
        try:
            end = self.ask(self._end, call, index)
        except Lost:
            return
        if end is None:
            if known is not None:
                self.tell(f"input {index} of {call.object_id} ended with {known}, and then had not")
            return
        if known is not None and end != known:
            self.tell(f"input {index} of {call.object_id} ended with {known}, and then with {end}")
        if end == CANCELLED and call.object_id not in self.cancelled:
            self.tell(f"input {index} of {call.object_id} was cancelled by nobody")
        if end != CANCELLED and end[0] != numbers[index]:
            self.tell(f"input {index} of {call.object_id} has the result of another: {end}, not {numbers[index]}")
        self.ended[call.object_id, index] = end

    @staticmethod
    def _end(call: modal.FunctionCall[Any], index: int) -> Any:
        try:
            return tuple(call.get(timeout=0, index=index))
        except RemoteError as error:
            if "cancelled" not in str(error):
                raise
            return CANCELLED
        except TimeoutError as error:
            if type(error) is not TimeoutError:
                # OutputExpiredError is one as well.
                raise
            return None
