"""The kinds of faults: one table for the parser of specifications and for the user's page.

Owns names, values, options and descriptions of the faults. The modules ``rpc_faults``, ``container_faults`` and
``fault_injector`` inject them.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modalflow.emulator.faults.spec.values import (
    DELAY,
    DURATION,
    POSITIVE,
    PROBABILITY,
    RATE,
    SIGNED_DURATION,
    WHOLE,
    Value,
    choice,
)


class Scope(enum.Enum):
    """The target of a fault."""

    RPC = "rpc"
    QUEUE = "queue"
    DICT = "dict"
    VOLUME = "volume"
    CONTAINER = "container"
    CLOCK = "clock"
    WORLD = "world"


#: Scope → (form of its target, the unit with its own counter and random numbers).
TARGETS: Mapping[Scope, tuple[str, str]] = {
    Scope.RPC: ("name of an RPC, with wildcards: `FunctionMap`, `Queue*`, `*`", "each RPC"),
    Scope.QUEUE: ("`queue` or `queue/NAME`", "each Queue"),
    Scope.DICT: ("`dict` or `dict/NAME`", "each Dict"),
    Scope.VOLUME: ("`volume` or `volume/NAME`", "each Volume"),
    Scope.CONTAINER: ("`container`, `container/APP`, `container/APP/FUNCTION` or `container/ta-…`", "each function"),
    Scope.CLOCK: ("`clock`", "-"),
    Scope.WORLD: ("`world`", "-"),
}


@dataclass(frozen=True)
class FaultOption:
    """An option of a fault."""

    value: Value
    help: str


OPTIONS: Mapping[str, FaultOption] = {
    "p": FaultOption(PROBABILITY, "The probability each time, from the fault's own random numbers."),
    "after": FaultOption(WHOLE, "Skips the first N times."),
    "every": FaultOption(POSITIVE, "Happens every N-th time, beginning with the first."),
    "count": FaultOption(POSITIVE, "Happens N times at most."),
    "for": FaultOption(choice("clients", "containers"), "Only for calls from these."),
    "retry-after": FaultOption(DURATION, "Adds an RPCRetryPolicy: the SDK waits for this time, and retries forever."),
    "burst": FaultOption(POSITIVE, "How many calls may come at once. Default: the calls of one second."),
    "wait": FaultOption(DELAY, "Delay between the point in time and the fault."),
    "containers": FaultOption(choice("running", "frozen"), "State of the containers during the fault."),
    "grace": FaultOption(
        DURATION, "Time for the exit handlers of a preempted container. Default: 30s, as in Modal's documentation."
    ),
}

COUNTING = ("p", "after", "every", "count")

#: Values of ``at``: the point in time of a fault of a container or of the world.
POINTS: Mapping[str, str] = {
    "input": "A container gets inputs. The fault comes before they arrive; see `wait`.",
    "start": "A container's process has started, before its first request for an input.",
    "ready": "A container requests its first input.",
    "second": "Each second of a working container, or of the control plane. With `p`, you get a failure rate.",
    "once": "Once, when you add the fault.",
}
CONTAINER_POINTS = ("input", "start", "ready", "second")
WORLD_POINTS = ("once", "second")


@dataclass(frozen=True)
class FaultKind:
    """One kind of fault. Without ``value`` it takes none; ``default`` is its default value."""

    name: str
    scope: Scope
    help: str
    example: str
    value: Value | None = None
    default: str | None = None
    options: tuple[str, ...] = COUNTING
    points: tuple[str, ...] = ()
    """Values of ``at``; the first is the default."""


def _rpc_kinds() -> Iterator[FaultKind]:
    by_caller = (*COUNTING, "for")
    yield FaultKind(
        "delay",
        Scope.RPC,
        "Delays the call. Several delays add up.",
        "*:delay=80ms±20ms,for=clients",
        DELAY,
        options=by_caller,
    )
    for name in ("unavailable", "internal", "unknown", "cancelled", "deadline-exceeded"):
        words = name.replace("-", "_").upper()
        yield FaultKind(
            name,
            Scope.RPC,
            f"{words} instead of an answer. The call has no effect. The SDK retries three times.",
            f"FunctionMap:{name},p=0.1",
            options=by_caller,
        )
        yield FaultKind(
            f"{name}-after",
            Scope.RPC,
            f"{words} instead of an answer, but the call has its effect. Of a stream, the first message arrives.",
            f"FunctionMap:{name}-after,count=1",
            options=by_caller,
        )
    yield FaultKind(
        "lost-reply",
        Scope.RPC,
        "The call has its effect, but its answer never comes. `reset` resets the stream, as a failing proxy does. "
        "`disconnect` ends the connection with all its calls. `held` never answers, as a network without packets.",
        "DictUpdate:lost-reply,count=1",
        choice("reset", "disconnect", "held"),
        default="reset",
        options=by_caller,
    )
    yield FaultKind(
        "resource-exhausted",
        Scope.RPC,
        "RESOURCE_EXHAUSTED. The call has no effect. The SDK raises ResourceExhaustedError at once, unless you set "
        "`retry-after`.",
        "QueuePut:resource-exhausted,retry-after=2s,count=5",
        options=(*by_caller, "retry-after"),
    )
    yield FaultKind(
        "rate",
        Scope.RPC,
        "RESOURCE_EXHAUSTED for calls above this rate. It depends on the clock and not on the seed.",
        "FunctionMap:rate=200/s,burst=1000,for=clients",
        RATE,
        options=("for", "burst", "retry-after"),
    )
    yield FaultKind(
        "unauthenticated",
        Scope.RPC,
        "UNAUTHENTICATED, as after a rotation of the token. The SDK raises AuthError. The call has no effect.",
        "*:unauthenticated,for=clients",
        options=by_caller,
    )


def _world_kinds() -> Iterator[FaultKind]:
    yield FaultKind("lose-put", Scope.QUEUE, "Loses an item after its put. Counts items.", "queue:lose-put,p=0.01")
    yield FaultKind(
        "delay-put",
        Scope.QUEUE,
        "Delays a put of items. Counts puts.",
        "queue/events:delay-put=2s±1s",
        DELAY,
    )
    yield FaultKind("double-put", Scope.QUEUE, "Puts an item twice. Counts items.", "queue/events:double-put,p=0.1")
    yield FaultKind(
        "lose-get",
        Scope.QUEUE,
        "Loses an item on its way to a reader. Counts items.",
        "queue/events:lose-get,count=1",
    )
    yield FaultKind(
        "expire",
        Scope.DICT,
        "An entry counts as expired at a request (get, contains, pop, a claim). Counts requests.",
        "dict/claims:expire,p=0.05",
    )
    yield FaultKind(
        "delay-commit",
        Scope.VOLUME,
        "Delays an explicit or background commit. Until then, other readers see the old files.",
        "volume/logs:delay-commit=3s",
        DELAY,
    )
    points, options = CONTAINER_POINTS, (*COUNTING, "wait")
    yield FaultKind(
        "kill",
        Scope.CONTAINER,
        "The container ends with SIGKILL, as on a lost machine or without memory.",
        "container/etl/load:kill,at=input,after=2,count=1",
        options=options,
        points=points,
    )
    yield FaultKind(
        "freeze",
        Scope.CONTAINER,
        "All processes of the container stop for this time (SIGSTOP), with their heartbeats.",
        "container/etl:freeze=20s,at=input,p=0.1",
        DURATION,
        options=options,
        points=points,
    )
    yield FaultKind(
        "preempt",
        Scope.CONTAINER,
        "SIGINT, time for exit handlers, SIGKILL. Then the same inputs run again in another container. Has no effect "
        "on functions with `nonpreemptible=True`.",
        "container/etl/load:preempt,wait=200ms,count=1",
        options=(*options, "grace"),
        points=points,
    )
    yield FaultKind(
        "crash-start",
        Scope.CONTAINER,
        "A container ends with exit code 1 before its first input, as in a crash loop.",
        "container/etl/load:crash-start,count=2",
    )
    yield FaultKind(
        "skew",
        Scope.CLOCK,
        "Moves the clock of the control plane: timestamps, and lifetimes of results, Dict entries and partitions. "
        "Timeouts and idle windows use another clock and do not change.",
        "clock:skew=8d",
        SIGNED_DURATION,
        options=(),
    )
    yield FaultKind(
        "stop",
        Scope.WORLD,
        "Holds back all answers over gRPC and HTTP for this time.",
        "world:stop=5s,containers=frozen",
        DURATION,
        options=(*COUNTING, "wait", "containers"),
        points=WORLD_POINTS,
    )


KINDS: Mapping[tuple[Scope, str], FaultKind] = {
    (kind.scope, kind.name): kind for kind in (*_rpc_kinds(), *_world_kinds())
}


def of_scope(scope: Scope) -> dict[str, FaultKind]:
    """Return the kinds of one scope by name."""
    return {kind.name: kind for kind in KINDS.values() if kind.scope is scope}
