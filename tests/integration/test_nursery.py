"""A zygote without Airflow, as a real process: forks, signals, ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modalflow.protocol.messages import Kind, State
from modalflow.worker.zygote.client import Nursery, ZygoteEndedError
from modalflow.worker.zygote.protocol import Ending, Order
from tests.support import descendants

#: Signals 32 and 33, which no program can set by the C library's means.
_OF_THE_C_LIBRARY = 0b11 << 31


@pytest.fixture
async def nursery() -> AsyncIterator[Nursery]:
    nursery = Nursery(os.environ, airflow=False)
    yield nursery
    await nursery.close()


def order(tmp_path: Path, command: list[str] | str, name: str = "o") -> Order:
    segment = tmp_path / f"{name}.log"
    segment.touch()
    env = {"PATH": os.environ["PATH"], "ONLY": "this"}
    return Order(name, Kind.COMMAND, str(segment), str(tmp_path), env, command=command)


def printed(tmp_path: Path, name: str = "o") -> list[str]:
    return [json.loads(line)["event"] for line in (tmp_path / f"{name}.log").read_text().splitlines()]


async def until_it_says(tmp_path: Path, text: str, name: str = "o") -> str:
    async with asyncio.timeout(20):
        while text not in (said := (tmp_path / f"{name}.log").read_text()):
            await asyncio.sleep(0.01)
    return said


def memory_of(pid: int) -> bytes:
    """All that a process has in writable memory."""
    found = b""
    with Path(f"/proc/{pid}/mem").open("rb") as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights = line.split()[:2]
            begin, end = (int(address, 16) for address in span.split("-"))
            if rights.startswith("rw"):
                memory.seek(begin)
                found += memory.read(end - begin)
    return found


def test_a_container_does_not_import_airflow() -> None:
    """What a container imports before and for its inputs is not Airflow: that takes seconds, and is the zygote's."""
    check = "import modalflow.worker.app, modalflow.worker.call, sys; sys.exit('airflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0


async def test_a_command_has_the_environment_it_was_given(nursery: Nursery, tmp_path: Path) -> None:
    """Nothing of the zygote's own variables reaches a command."""
    assert await nursery.run(order(tmp_path, ["env"])) == Ending("o", 0, None)
    assert sorted(printed(tmp_path)) == sorted([f"PATH={os.environ['PATH']}", "ONLY=this"])


async def test_a_command_inherits_no_open_file(nursery: Nursery, tmp_path: Path) -> None:
    """A command holds its standard streams and nothing else: not the sockets on which other orders come."""
    await nursery.run(order(tmp_path, ["ls", "/proc/self/fd"]))
    # The fourth is the folder that ls itself has open.
    assert printed(tmp_path) == ["0", "1", "2", "3"]


async def test_a_command_has_the_signals_of_a_new_process(nursery: Nursery, tmp_path: Path) -> None:
    """What the zygote ignores or blocks is its own: a command ignores nothing and blocks nothing."""
    await nursery.run(order(tmp_path, ["grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]))
    masks = [int(line.split()[1], 16) & ~_OF_THE_C_LIBRARY for line in printed(tmp_path)]
    assert masks == [0, 0]


async def test_a_zygote_never_reads_an_order(nursery: Nursery, tmp_path: Path) -> None:
    """What later processes inherit of the zygote's memory holds nothing of an earlier order: no token, no variable."""
    secret = uuid.uuid4().hex
    await nursery.run(order(tmp_path, ["sh", "-c", f"echo {secret}"]))
    [zygote] = [pid for pid, command in descendants().items() if "modalflow.worker.zygote.server" in command]
    assert printed(tmp_path) == [secret]
    assert secret.encode() not in memory_of(zygote)


async def test_a_long_order_arrives_whole(nursery: Nursery, tmp_path: Path) -> None:
    """An order may be larger than a socket's buffer."""
    much = "x" * 100_000
    await nursery.run(order(tmp_path, ["/bin/sh", "-c", 'echo $(($(echo "$@" | wc -c)))', *[much] * 15]))
    assert int(printed(tmp_path)[0]) > 1_400_000


async def test_a_signal_is_told_as_such(nursery: Nursery, tmp_path: Path) -> None:
    """The return code of a killed command is the negative number of the signal."""
    assert (await nursery.run(order(tmp_path, "kill -9 $$"))).return_code == -signal.SIGKILL


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_what_cannot_be_executed_says_why(nursery: Nursery, tmp_path: Path, program: str, code: int) -> None:
    """A missing program and a file that is no program are told apart as a shell does."""
    ending = await nursery.run(order(tmp_path, [program]))
    assert ending.outcome is not None
    assert (ending.outcome.state, ending.outcome.return_code) == (State.FAILED, code)
    assert program in (ending.outcome.reason or "")


async def test_many_at_once(nursery: Nursery, tmp_path: Path) -> None:
    """Orders run side by side and each gets its own ending."""
    orders = [order(tmp_path, f"sleep 0.1; exit {n}", f"o{n}") for n in range(20)]
    endings = await asyncio.gather(*(nursery.run(o) for o in orders))
    assert [ending.return_code for ending in endings] == list(range(20))


async def test_a_kill_reaches_those_who_left_the_session(nursery: Nursery, tmp_path: Path) -> None:
    """A daemon that a command started in a session of its own dies with the command."""
    running = asyncio.create_task(nursery.run(order(tmp_path, "trap '' TERM; setsid sleep 603 & echo up; wait")))
    await until_it_says(tmp_path, "up")
    await nursery.interrupt("o")
    await nursery.kill("o")
    assert (await running).return_code == -signal.SIGKILL
    assert not [command for command in descendants().values() if "sleep 603" in command]


async def test_a_dead_zygote_is_noticed_and_replaced(nursery: Nursery, tmp_path: Path) -> None:
    """Who waits for an order of a killed zygote hears of the signal, nothing of it lives on, the next order runs."""
    running = asyncio.create_task(nursery.run(order(tmp_path, "sleep 604 & echo up; wait")))
    await until_it_says(tmp_path, "up")
    # The process beside the command was forked from it, and is called the same.
    zygote = min(pid for pid, command in descendants().items() if "modalflow.worker.zygote.server" in command)
    os.kill(zygote, signal.SIGKILL)
    with pytest.raises(ZygoteEndedError, match="SIGKILL"):
        await running
    assert not [command for command in descendants().values() if "sleep 604" in command]
    assert (await nursery.run(order(tmp_path, ["true"], "next"))).return_code == 0


async def test_closing_ends_everything(tmp_path: Path) -> None:
    """Nothing that a zygote started outlives it."""
    nursery = Nursery(os.environ, airflow=False)
    running = asyncio.create_task(nursery.run(order(tmp_path, "trap '' TERM; echo up; sleep 605; sleep 605")))
    await until_it_says(tmp_path, "up")
    await nursery.close()
    with pytest.raises(ZygoteEndedError):
        await running
