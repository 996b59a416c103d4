"""An app with a function for each thing that the contract tests of compute look at. Runs in containers."""

import asyncio
import ctypes
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import modal

HERE = pathlib.Path(__file__).parent

image = (
    modal.Image.debian_slim()
    .env({"FROM_IMAGE": "image value", "BOTH": "image"})
    .add_local_file(HERE / "data.txt", "/opt/compute-data/here/data.txt")
    .add_local_file(HERE / "data.txt", "/data-at-root.txt")
)
app = modal.App("compute", image=image)


def about() -> dict[str, Any]:
    """What a container is like from the inside."""
    return {
        "pid": os.getpid(),
        "container": os.environ.get("MODAL_TASK_ID"),
        "cwd": str(pathlib.Path.cwd()),
        "call": modal.current_function_call_id(),
        "input": modal.current_input_id(),
    }


@app.function()
def add(a: int, b: int) -> int:
    return a + b


@app.function()
def where() -> dict[str, Any]:
    return about()


@app.function()
def machine() -> dict[str, Any]:
    """What a program can see of the machine."""
    log = ctypes.create_string_buffer(4096)
    # Not dmesg, which an image may lack. 3 is SYSLOG_ACTION_READ_ALL, which Linux may refuse.
    read = ctypes.CDLL(None).klogctl(3, log, len(log))
    return {
        "release": os.uname().release,
        "host name": os.uname().nodename,
        "user": os.geteuid(),
        "version": pathlib.Path("/proc/version").read_text(),
        "kernel log": log.raw[: max(read, 0)].decode(errors="replace"),
        "runtime": os.environ.get("MODAL_FUNCTION_RUNTIME"),
    }


@app.function()
def echo(data: bytes) -> bytes:
    return data


@app.function()
def makes(size: int) -> bytes:
    return os.urandom(size)


@app.function()
def fail(message: str) -> None:
    raise ValueError(message)


@app.function()
def environment() -> dict[str, str]:
    return dict(os.environ)


@app.function(secrets=[modal.Secret.from_dict({"FROM_SECRET": "secret value", "BOTH": "secret"})])
def environment_with_secret() -> dict[str, str]:
    return dict(os.environ)


@app.function()
def read(path: str) -> str:
    return pathlib.Path(path).read_text()


@app.function()
def write(path: str, text: str) -> str:
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text(text)
    return pathlib.Path(path).read_text()


@app.function(timeout=1)
def out_of_time(seconds: float) -> None:
    time.sleep(seconds)


@app.function(timeout=1)
def ignores_its_timeout(marker: str) -> None:
    seen = modal.Dict.from_name(marker, create_if_missing=True)
    while True:
        try:
            seen["container"] = os.environ["MODAL_TASK_ID"]
            time.sleep(60)
        except BaseException:  # noqa: BLE001 (the point of it)
            pass


@app.function()
def sleep(seconds: float, marker: str) -> str:
    """Sleep; tell with a Dict when it began and whether it was interrupted."""
    notes = modal.Dict.from_name(marker, create_if_missing=True)
    notes["container"] = os.environ["MODAL_TASK_ID"]
    try:
        time.sleep(seconds)
    except BaseException as error:
        notes["interrupted"] = type(error).__name__
        raise
    return os.environ["MODAL_TASK_ID"]


@app.function(retries=modal.Retries(max_retries=2, initial_delay=0.0))
def fails_at_first(marker: str, times: int) -> int:
    """Fail that many times, then return how often it was tried."""
    notes = modal.Dict.from_name(marker, create_if_missing=True)
    tries = int(notes.get("tries", 0)) + 1
    notes["tries"] = tries
    if tries <= times:
        raise RuntimeError(f"try {tries}")
    return tries


@app.function()
def dies(marker: str, times: int, how: str) -> int:
    """Lose the container that many times, then return how often it was tried."""
    notes = modal.Dict.from_name(marker, create_if_missing=True)
    tries = int(notes.get("tries", 0)) + 1
    notes["tries"] = tries
    if tries <= times:
        if how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os._exit(3)
    return tries


@app.function(max_containers=1)
def one_at_a_time(seconds: float) -> tuple[str, float, float]:
    began = time.time()
    time.sleep(seconds)
    return os.environ["MODAL_TASK_ID"], began, time.time()


@app.function()
@modal.concurrent(max_inputs=4)
async def together(seconds: float) -> tuple[str, float, float]:
    began = time.time()
    await asyncio.sleep(seconds)
    return os.environ["MODAL_TASK_ID"], began, time.time()


@app.function(single_use_containers=True)
def once() -> str:
    return os.environ["MODAL_TASK_ID"]


@app.function(scaledown_window=2)
def short_lived() -> str:
    return os.environ["MODAL_TASK_ID"]


@app.function()
def longest_pause(seconds: float, notes: str = "", enough: float = 3600.0) -> float:
    """Do next to nothing for so long, or until a pause is enough; return the longest time without even that."""
    if notes:
        modal.Dict.from_name(notes)["began"] = True
    longest, last = 0.0, time.monotonic()
    end = last + seconds
    while last < end and longest < enough:
        time.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


@app.function()
def leaves_a_child_behind() -> int:
    """Start a process that would live on, in a session of its own."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True).pid


@app.function()
def prints(lines: int) -> None:
    for number in range(lines):
        print(f"line {number} on stdout")
    print("on stderr", file=sys.stderr)
    sys.stdout.write("without a newline")


@app.function()
def prompts(queue: str, *pieces: str) -> None:
    """Print the pieces; between two of them wait until something comes into the queue."""
    for number, piece in enumerate(pieces):
        if number:
            modal.Queue.from_name(queue).get(timeout=60)
        print(piece, end="")


@app.function()
def dies_within_a_line() -> None:
    print("half a line", end="")
    os.kill(os.getpid(), signal.SIGKILL)


@app.function()
def count(up_to: int) -> Iterator[int]:
    yield from range(up_to)


@app.function()
def adds_up(numbers: list[int]) -> int:
    """Call another function of the app."""
    return sum(add.remote(n, 0) for n in numbers)


@app.function()
@modal.batched(max_batch_size=3, wait_ms=300)
def in_batches(numbers: list[int]) -> list[tuple[int, int]]:
    return [(n, len(numbers)) for n in numbers]


@app.cls()
class Greeter:
    greeting: str = modal.parameter(default="Hello")

    @modal.enter()
    def enter(self) -> None:
        self.entered = True

    @modal.method()
    def greet(self, name: str) -> str:
        assert self.entered
        return f"{self.greeting}, {name}"

    @modal.method()
    def where(self) -> str | None:
        return os.environ.get("MODAL_TASK_ID")


@app.function()
def notes_in_a_subprocess(notes: str, key: str) -> None:
    """Have a program that this container starts write to a Dict."""
    program = "import modal, sys; modal.Dict.from_name(sys.argv[1])[sys.argv[2]] = 'from a subprocess'"
    subprocess.run([sys.executable, "-c", program, notes, key], check=True)
