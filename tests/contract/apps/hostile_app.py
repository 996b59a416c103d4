"""Functions that try what a container may not do, and tell how far they came. Runs in containers."""

import ctypes
import json
import os
import pathlib
import subprocess
import sys
import urllib.error
import urllib.request

import modal

app = modal.App()

_PROCESSES = pathlib.Path("/proc")


@app.function()
def files_below(folder: str) -> list[str]:
    """Every file that can be found there."""
    return [str(path) for path in pathlib.Path(folder).rglob("*") if not path.is_dir()]


@app.function()
def uncover(folder: str) -> list[str]:
    """Take away what hides the folder, as root of this container and as root of a namespace made for it; then look."""
    libc = ctypes.CDLL(None)
    libc.umount2(os.fsencode(folder), 2)
    apart = (
        "import ctypes, os, sys; libc = ctypes.CDLL(None); libc.unshare(0x10020000); "
        "libc.umount2(os.fsencode(sys.argv[1]), 2); print('\\n'.join(os.listdir(sys.argv[1])))"
    )
    found = subprocess.run([sys.executable, "-c", apart, folder], capture_output=True, text=True).stdout.split()
    return sorted({*(path.name for path in pathlib.Path(folder).iterdir()), *found})


@app.function()
def whoever_knows(secret: str) -> list[str]:
    """The processes whose variables or command line have the secret, and the own variables that do."""
    found = [name for name, value in os.environ.items() if secret in value]
    for path in [*_PROCESSES.glob("[0-9]*/environ"), *_PROCESSES.glob("[0-9]*/cmdline")]:
        try:
            content = path.read_bytes()
        except OSError:
            continue
        if secret.encode() in content:
            found.append(str(path))
    return found


@app.function()
def signal_others(pids: list[int]) -> list[int]:
    """Kill those processes of the host's; which of them could be killed."""
    killed = []
    for pid in pids:
        # A number may be one of this container's own.
        if pid in _own():
            continue
        try:
            os.kill(pid, 9)
            killed.append(pid)
        except OSError:
            pass
    return killed


def _own() -> list[int]:
    return [int(path.name) for path in _PROCESSES.glob("[0-9]*")]


@app.function()
def processes() -> int:
    """How many processes can be seen."""
    return len(_own())


@app.function()
def change_the_machine() -> list[str]:
    """Open what changes the machine, or is its disks, for writing; what could be opened."""
    opened = []
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/sys/power/state", *_disks()):
        try:
            os.close(os.open(path, os.O_WRONLY))
            opened.append(path)
        except OSError:
            pass
    return opened


def _disks() -> list[str]:
    return [str(path) for path in pathlib.Path("/dev").iterdir() if path.is_block_device() or path.name == "mem"]


@app.function()
def scribble(paths: list[str]) -> list[str]:
    """Write files where nothing of the app's is; which could be written, as it seems here."""
    written = []
    for path in paths:
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text("scribbled")
        written.append(path)
    return written


@app.function()
def ask(url: str, token: str) -> int:
    """The status that an address of the control plane's HTTP server answers with."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            json.load(answer)
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return int(error.code)


@app.function()
def stay(notes: modal.Queue, path: str) -> str:
    """Write a file and be there until told to go; what is in the file then."""
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    pathlib.Path(path).write_text("mine")
    notes.put("staying")
    notes.get(partition="go", timeout=120)
    return pathlib.Path(path).read_text()
