"""The kinds of faults there are: one table, from which specifications are read and the user's page is made.

Owns names, values, options and what each fault is said to do. What it does is in rpcs.py, containers.py and world.py.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from modalflow.emulator.faults.values import (
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
    """What a fault happens to."""

    RPC = "rpc"
    QUEUE = "queue"
    DICT = "dict"
    VOLUME = "volume"
    CONTAINER = "container"
    CLOCK = "clock"
    WORLD = "world"


#: Scope → (how its target is written, what is counted and has a random stream of its own).
TARGETS: Mapping[Scope, tuple[str, str]] = {
    Scope.RPC: ("RPC's name, with wildcards: `FunctionMap`, `Queue*`, `*`", "each RPC"),
    Scope.QUEUE: ("`queue` or `queue/NAME`", "each Queue"),
    Scope.DICT: ("`dict` or `dict/NAME`", "each Dict"),
    Scope.VOLUME: ("`volume` or `volume/NAME`", "each Volume"),
    Scope.CONTAINER: ("`container`, `container/APP`, `container/APP/FUNCTION` or `container/ta-…`", "each function"),
    Scope.CLOCK: ("`clock`", "-"),
    Scope.WORLD: ("`world`", "-"),
}


@dataclass(frozen=True)
class Option:
    """What may follow a kind."""

    value: Value
    help: str


OPTIONS: Mapping[str, Option] = {
    "p": Option(PROBABILITY, "Happens with this probability each time, by the rule's own random stream."),
    "after": Option(WHOLE, "Skips the first N times."),
    "every": Option(POSITIVE, "Happens at every N-th time only, beginning with the first."),
    "count": Option(POSITIVE, "Happens N times, and then no more."),
    "for": Option(choice("clients", "containers"), "Only if one of these calls."),
    "retry-after": Option(DURATION, "Comes with an RPCRetryPolicy: the SDK waits so long, and tries again for ever."),
    "burst": Option(POSITIVE, "How many may come at once; as many as come in a second where it is not given."),
    "wait": Option(DELAY, "Happens so long after what it is told to happen at."),
    "containers": Option(choice("running", "frozen"), "What becomes of the containers meanwhile."),
    "grace": Option(DURATION, "How long a preempted container has for its exit handlers; 30s, as Modal says."),
}

COUNTING = ("p", "after", "every", "count")

#: What ``at`` takes: when a fault of a container, or of the world, may happen.
POINTS: Mapping[str, str] = {
    "input": "A container is given inputs (before they reach it; see `wait`).",
    "start": "A container's process has been started, and has not asked for an input yet.",
    "ready": "A container asks for its first input.",
    "second": "Each second: of a container that works, or of the control plane. With `p`, a rate of failure.",
    "once": "When the fault is added.",
}
CONTAINER_POINTS = ("input", "start", "ready", "second")
WORLD_POINTS = ("once", "second")


@dataclass(frozen=True)
class Kind:
    """One kind of fault. Without ``value`` it takes none; ``default`` is what it is where none is given."""

    name: str
    scope: Scope
    help: str
    example: str
    value: Value | None = None
    default: str | None = None
    options: tuple[str, ...] = COUNTING
    points: tuple[str, ...] = ()
    """Words that ``at`` takes, the first being the default."""


def _rpc_kinds() -> Iterator[Kind]:
    by_caller = (*COUNTING, "for")
    yield Kind(
        "delay",
        Scope.RPC,
        "The call is carried out so much later. Several rules add up.",
        "*:delay=80ms±20ms,for=clients",
        DELAY,
        options=by_caller,
    )
    for name in ("unavailable", "internal", "unknown", "cancelled", "deadline-exceeded"):
        words = name.replace("-", "_").upper()
        yield Kind(
            name,
            Scope.RPC,
            f"{words} instead of an answer; the call had no effect. The SDK tries again three times.",
            f"FunctionMap:{name},p=0.1",
            options=by_caller,
        )
        yield Kind(
            f"{name}-after",
            Scope.RPC,
            f"{words} instead of an answer, although the call had its effect. Of a stream, its first message arrives.",
            f"FunctionMap:{name}-after,count=1",
            options=by_caller,
        )
    yield Kind(
        "lost-reply",
        Scope.RPC,
        "The call has its effect and its answer never comes: the stream is reset, as by a proxy that goes away; "
        "`disconnect` ends the whole connection with all that is under way on it; `held` says nothing until the client "
        "gives up, as a network that drops packets.",
        "DictUpdate:lost-reply,count=1",
        choice("reset", "disconnect", "held"),
        default="reset",
        options=by_caller,
    )
    yield Kind(
        "resource-exhausted",
        Scope.RPC,
        "RESOURCE_EXHAUSTED; the call had no effect. ResourceExhaustedError at once, unless `retry-after` is given.",
        "QueuePut:resource-exhausted,retry-after=2s,count=5",
        options=(*by_caller, "retry-after"),
    )
    yield Kind(
        "rate",
        Scope.RPC,
        "RESOURCE_EXHAUSTED for what comes faster. By the clock, so it depends on time and not on the seed.",
        "FunctionMap:rate=200/s,burst=1000,for=clients",
        RATE,
        options=("for", "burst", "retry-after"),
    )
    yield Kind(
        "unauthenticated",
        Scope.RPC,
        "UNAUTHENTICATED, as for a token that was rotated: AuthError in the SDK. The call had no effect.",
        "*:unauthenticated,for=clients",
        options=by_caller,
    )


def _world_kinds() -> Iterator[Kind]:
    yield Kind("lose-put", Scope.QUEUE, "An item that was put is not there. Counted by item.", "queue:lose-put,p=0.01")
    yield Kind(
        "lose-get",
        Scope.QUEUE,
        "An item that was taken reaches nobody. Counted by item.",
        "queue/events:lose-get,count=1",
    )
    yield Kind(
        "expire",
        Scope.DICT,
        "An entry is found to have expired when it is asked for (get, contains, pop, a claim). Counted by request.",
        "dict/claims:expire,p=0.05",
    )
    yield Kind(
        "delay-commit",
        Scope.VOLUME,
        "A commit, asked for or in the background, is carried out so much later; until then others see the old files.",
        "volume/logs:delay-commit=3s",
        DELAY,
    )
    points, options = CONTAINER_POINTS, (*COUNTING, "wait")
    yield Kind(
        "kill",
        Scope.CONTAINER,
        "The container ends as by SIGKILL: a lost machine, or a process out of memory.",
        "container/etl/load:kill,at=input,after=2,count=1",
        options=options,
        points=points,
    )
    yield Kind(
        "freeze",
        Scope.CONTAINER,
        "All processes of the container stand still so long (SIGSTOP), heartbeats included.",
        "container/etl:freeze=20s,at=input,p=0.1",
        DURATION,
        options=options,
        points=points,
    )
    yield Kind(
        "preempt",
        Scope.CONTAINER,
        "SIGINT, the grace for exit handlers, SIGKILL; the same inputs then run again in another container. "
        "Not of functions with `nonpreemptible=True`.",
        "container/etl/load:preempt,wait=200ms,count=1",
        options=(*options, "grace"),
        points=points,
    )
    yield Kind(
        "crash-start",
        Scope.CONTAINER,
        "A container ends with exit code 1 before it takes an input: a crash loop.",
        "container/etl/load:crash-start,count=2",
    )
    yield Kind(
        "skew",
        Scope.CLOCK,
        "What the control plane calls now is off by so much: timestamps, and the lifetimes of results, Dict entries "
        "and partitions. Timeouts and idle windows are measured by another clock and do not change.",
        "clock:skew=8d",
        SIGNED_DURATION,
        options=(),
    )
    yield Kind(
        "stop",
        Scope.WORLD,
        "For so long nothing is answered, over gRPC or HTTP; then everything is.",
        "world:stop=5s,containers=frozen",
        DURATION,
        options=(*COUNTING, "wait", "containers"),
        points=WORLD_POINTS,
    )


KINDS: Mapping[tuple[Scope, str], Kind] = {(kind.scope, kind.name): kind for kind in (*_rpc_kinds(), *_world_kinds())}


def of_scope(scope: Scope) -> dict[str, Kind]:
    """Return the kinds of one scope by name."""
    return {kind.name: kind for kind in KINDS.values() if kind.scope is scope}
