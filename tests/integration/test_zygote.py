"""A zygote without Airflow, as a real process: forks, signals, ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from modalflow.protocol.messages import Kind, State
from modalflow.support import linux
from modalflow.worker.zygote.client import ZygoteClient, ZygoteEndedError
from modalflow.worker.zygote.protocol import ForkRequest, ForkResult
from tests.support import descendants


@pytest.fixture(params=["forked now", "prepared"])
async def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ZygoteClient]:
    """A zygote that forks for the first request, and one that has already forked."""
    client = ZygoteClient(os.environ, airflow=False)
    if request.param == "prepared":
        await prepared_by(client, tmp_path_factory.mktemp("first"))
    yield client
    await client.close()


async def prepared_by(client: ZygoteClient, folder: Path) -> int:
    """Have a first request executed, wait for the process of the next one, and return its PID."""
    await client.fork(request(folder, ["true"], "first"))
    return await prepared()


def zygote() -> int:
    """Return the PID of the zygote. Each process forked from it is called the same."""
    return min(pid for pid, command in descendants().items() if "modalflow.worker.zygote.server" in command)


async def prepared() -> int:
    """Wait for the process of the next request, and return its PID."""
    async with asyncio.timeout(20):
        while not (found := linux.children(zygote())):
            await asyncio.sleep(0.01)
    return found[0]


def request(tmp_path: Path, command: list[str] | str, name: str = "o") -> ForkRequest:
    log = tmp_path / f"{name}.log"
    log.touch()
    env = {"PATH": os.environ["PATH"], "ONLY": "this"}
    return ForkRequest(name, Kind.COMMAND, str(log), str(tmp_path), env, command=command)


def printed(tmp_path: Path, name: str = "o") -> list[str]:
    return [json.loads(line)["event"] for line in (tmp_path / f"{name}.log").read_text().splitlines()]


async def until_it_says(tmp_path: Path, text: str, name: str = "o") -> str:
    async with asyncio.timeout(20):
        while text not in (said := (tmp_path / f"{name}.log").read_text()):
            await asyncio.sleep(0.01)
    return said


async def until_ended(pid: int) -> None:
    async with asyncio.timeout(20):
        while linux.is_running(pid):
            await asyncio.sleep(0.01)


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


async def test_a_command_has_the_environment_it_was_given(client: ZygoteClient, tmp_path: Path) -> None:
    """Nothing of the zygote's own variables reaches a command."""
    assert await client.fork(request(tmp_path, ["env"])) == ForkResult("o", 0, None)
    assert sorted(printed(tmp_path)) == sorted([f"PATH={os.environ['PATH']}", "ONLY=this"])


async def test_a_command_inherits_no_open_file(client: ZygoteClient, tmp_path: Path) -> None:
    """A command holds its standard streams and nothing else: not the sockets on which other requests come."""
    await client.fork(request(tmp_path, ["ls", "/proc/self/fd"]))
    # The fourth is the folder that ls itself has open.
    assert printed(tmp_path) == ["0", "1", "2", "3"]


async def test_a_command_has_the_signals_of_a_new_process(client: ZygoteClient, tmp_path: Path) -> None:
    """What the zygote ignores or blocks is its own: a command ignores nothing and blocks nothing."""
    # Not /proc/self/status: gVisor's has no such lines.
    await client.fork(request(tmp_path, ["env", "--list-signal-handling", "true"]))
    assert printed(tmp_path) == []


async def test_a_zygote_never_reads_an_order(client: ZygoteClient, tmp_path: Path) -> None:
    """What later processes inherit of the zygote's memory holds nothing of an earlier request."""
    secret = uuid.uuid4().hex
    await client.fork(request(tmp_path, ["sh", "-c", f"echo {secret}"]))
    assert printed(tmp_path) == [secret]
    assert secret.encode() not in memory_of(zygote())
    assert secret.encode() not in memory_of(await prepared())


async def test_a_long_order_arrives_whole(client: ZygoteClient, tmp_path: Path) -> None:
    """An request may be larger than a socket's buffer."""
    much = "x" * 100_000
    await client.fork(request(tmp_path, ["/bin/sh", "-c", 'echo $(($(echo "$@" | wc -c)))', *[much] * 15]))
    assert int(printed(tmp_path)[0]) > 1_400_000


async def test_a_signal_is_told_as_such(client: ZygoteClient, tmp_path: Path) -> None:
    """The return code of a killed command is the negative number of the signal."""
    assert (await client.fork(request(tmp_path, "kill -9 $$"))).return_code == -signal.SIGKILL


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("/etc/passwd", 126)])
async def test_what_cannot_be_executed_says_why(client: ZygoteClient, tmp_path: Path, program: str, code: int) -> None:
    """A missing program and a file that is no program are told apart as a shell does."""
    result = await client.fork(request(tmp_path, [program]))
    assert result.outcome is not None
    assert (result.outcome.state, result.outcome.return_code) == (State.FAILED, code)
    assert program in (result.outcome.reason or "")


async def test_many_at_once(client: ZygoteClient, tmp_path: Path) -> None:
    """Orders run side by side and each gets its own result."""
    requests = [request(tmp_path, f"sleep 0.1; exit {n}", f"o{n}") for n in range(20)]
    results = await asyncio.gather(*(client.fork(o) for o in requests))
    assert [result.return_code for result in results] == list(range(20))


async def test_a_kill_reaches_those_who_left_the_session(client: ZygoteClient, tmp_path: Path) -> None:
    """A daemon that a command started in a session of its own dies with the command."""
    running = asyncio.create_task(client.fork(request(tmp_path, "trap '' TERM; setsid sleep 603 & echo up; wait")))
    await until_it_says(tmp_path, "up")
    await client.interrupt("o")
    await client.kill("o")
    assert (await running).return_code == -signal.SIGKILL
    assert not [command for command in descendants().values() if "sleep 603" in command]


async def test_a_dead_zygote_is_noticed_and_replaced(client: ZygoteClient, tmp_path: Path) -> None:
    """A request of a killed zygote fails with the signal, nothing of it survives, and the next request runs."""
    running = asyncio.create_task(client.fork(request(tmp_path, "sleep 604 & echo up; wait")))
    await until_it_says(tmp_path, "up")
    os.kill(zygote(), signal.SIGKILL)
    with pytest.raises(ZygoteEndedError, match="SIGKILL"):
        await running
    assert not [command for command in descendants().values() if "sleep 604" in command]
    assert (await client.fork(request(tmp_path, ["true"], "next"))).return_code == 0


async def test_a_command_in_a_session_of_its_own_ends_with_the_zygote(client: ZygoteClient, tmp_path: Path) -> None:
    """Nothing of a command is found by its session then."""
    python = "import os, time; os.setpgid(0, os.getpgid(os.getppid())); os.setsid(); print('up', flush=True); "
    running = asyncio.create_task(client.fork(request(tmp_path, [sys.executable, "-c", python + "time.sleep(605)"])))
    await until_it_says(tmp_path, "up")
    os.kill(zygote(), signal.SIGKILL)
    with pytest.raises(ZygoteEndedError):
        await running
    async with asyncio.timeout(20):
        while [command for command in descendants().values() if "sleep(605)" in command]:
            await asyncio.sleep(0.01)


async def test_a_request_gets_the_prepared_process(client: ZygoteClient, tmp_path: Path) -> None:
    """Nothing is forked while it waits, and its time begins with it."""
    process = await prepared_by(client, tmp_path)
    began = time.monotonic()
    result = await client.fork(request(tmp_path, "echo $PPID"))
    assert printed(tmp_path) == [str(process)]
    assert result.usage is not None and result.usage.seconds <= time.monotonic() - began


async def test_a_dead_prepared_process_loses_no_request(client: ZygoteClient, tmp_path: Path) -> None:
    """The zygote forks another one, and from then on when a request comes."""
    process = await prepared_by(client, tmp_path)
    os.kill(process, signal.SIGKILL)
    await until_ended(process)
    for number in range(3):
        assert (await client.fork(request(tmp_path, ["true"], f"o{number}"))).return_code == 0


async def test_a_zygote_at_rest_has_no_prepared_process(client: ZygoteClient, tmp_path: Path) -> None:
    """Until there is a request again."""
    process = await prepared_by(client, tmp_path)
    await client.rest()
    await until_ended(process)
    await asyncio.sleep(0.3)
    assert linux.children(zygote()) == []
    assert await prepared_by(client, tmp_path) != process


async def test_a_zygote_without_a_request_prepares_nothing() -> None:
    """A container for commands alone has a zygote with Airflow too."""
    client = ZygoteClient(os.environ, airflow=False)
    await client.ready()
    await asyncio.sleep(0.3)
    assert linux.children(zygote()) == []
    await client.close()


async def test_the_prepared_process_ends_with_the_zygote(client: ZygoteClient, tmp_path: Path) -> None:
    """However the zygote ends."""
    process = await prepared_by(client, tmp_path)
    os.kill(zygote(), signal.SIGKILL)
    await until_ended(process)


async def test_a_zygote_prepares_one_process_at_a_time(client: ZygoteClient, tmp_path: Path) -> None:
    """And none beside a request: it would need as much memory."""
    running = asyncio.create_task(client.fork(request(tmp_path, "echo up; read line < /dev/zero")))
    await until_it_says(tmp_path, "up")
    await asyncio.sleep(0.3)
    assert len(linux.children(zygote())) == 1
    await client.kill("o")
    await running
    files = set()
    for number in range(5):
        await client.fork(request(tmp_path, ["true"], f"o{number}"))
        await prepared()
        files.add(await files_at_rest())
    assert len(files) == 1


async def files_at_rest() -> int:
    """The number of the zygote's open files, after it has closed those of the process that it has just forked."""
    folder, counts = Path(f"/proc/{zygote()}/fd"), list[int]()
    while len(counts) < 5 or len(set(counts[-5:])) > 1:
        counts.append(len(list(folder.iterdir())))
        await asyncio.sleep(0.05)
    return counts[-1]


async def test_closing_ends_everything(tmp_path: Path) -> None:
    """Nothing that a zygote started outlives it."""
    client = ZygoteClient(os.environ, airflow=False)
    running = asyncio.create_task(client.fork(request(tmp_path, "trap '' TERM; echo up; sleep 605; sleep 605")))
    await until_it_says(tmp_path, "up")
    await client.close()
    with pytest.raises(ZygoteEndedError):
        await running
