"""What a workload is: one client that does one thing after another, and remembers what must be true of it.

A workload never knows when the control plane is killed. An operation that lost its connection may have had its
effect or not; of every other one the workload knows what it did.
"""

from __future__ import annotations

import abc
import random
import threading
from collections.abc import Callable
from typing import ClassVar, ParamSpec, TypeVar

import modal

from tests.durability.unacknowledged import UNACKNOWLEDGED, is_lost_connection

P = ParamSpec("P")
T = TypeVar("T")


class Lost(Exception):
    """An operation was not acknowledged."""


class Workload(abc.ABC):
    """One client's work. ``step`` and ``check`` are never called at the same time."""

    name: ClassVar[str]

    def __init__(self, client: modal.Client, rng: random.Random) -> None:
        self.client, self.rng = client, rng
        self.acknowledged = 0
        self.lost = 0
        self.problems: list[str] = []
        self.turn = threading.Lock()

    @abc.abstractmethod
    def prepare(self) -> None:
        """Make what it works on; nothing is killed yet."""

    @abc.abstractmethod
    def step(self) -> None:
        """Do one thing. It may be killed under it."""

    @abc.abstractmethod
    def check(self) -> None:
        """With the control plane up, compare what is there with what must be, and ``tell`` what is wrong."""

    def finish(self) -> None:
        """The last check, after the last restart."""
        self.check()

    def ask(self, operation: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what the operation returns; Lost if it was not acknowledged."""
        try:
            answer = operation(*args, **kwargs)
        except UNACKNOWLEDGED as error:
            if not is_lost_connection(error):
                raise
            self.lost += 1
            raise Lost from error
        self.acknowledged += 1
        return answer

    def tell(self, problem: str) -> None:
        self.problems.append(f"{self.name}: {problem}")
