"""Tasks that do what a worker, and the tasks beside them, must survive; and one that only works."""

from __future__ import annotations

import contextlib
import ctypes
import json
import locale
import logging
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from airflow.sdk import BaseHook, Variable, dag, task

#: Seconds that nobody is to wait for.
FOREVER = 600

_QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _daemonize() -> bool:
    """Fork twice into a session of its own; True in the daemon."""
    if os.fork():
        return False
    os.setsid()
    if os.fork():
        os._exit(0)
    for descriptor in range(3):
        os.close(descriptor)
    return True


@task
def works() -> None:
    for number in range(int(os.environ.get("LINES", "300"))):
        print(os.environ["NAME"], number, flush=True)
        time.sleep(0.02)


@task
def forks() -> None:
    for _ in range(3):
        if not os.fork():
            time.sleep(FOREVER)
            os._exit(0)


@task
def daemonizes() -> None:
    if _daemonize():
        time.sleep(FOREVER)
        os._exit(0)


@task
def storms() -> None:
    for _ in range(200):
        if not os.fork():
            time.sleep(FOREVER)
            os._exit(0)


@task
def never_stays() -> None:
    """Leave a process that is another one each millisecond."""
    if _daemonize():
        deadline = time.monotonic() + FOREVER
        while time.monotonic() < deadline:
            if os.fork():
                os._exit(0)


@task
def closes_all() -> None:
    os.closerange(0, 4096)


@task
def exits_0() -> None:
    os._exit(0)


@task
def exits_3() -> None:
    os._exit(3)


@task
def raises_exit() -> None:
    sys.exit(4)


@task
def raises_interrupt() -> None:
    raise KeyboardInterrupt


@task
def raises_base() -> None:
    raise BaseException("neither an error nor an exit")


@task
def crashes() -> None:
    ctypes.string_at(0)


@task
def aborts() -> None:
    os.abort()


@task
def kills_itself() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@task
def forges() -> None:
    """Claim an outcome in every file that may be the supervisor's pipe, then fail."""
    outcome = json.dumps({"state": "success", "return_code": 0, "final_state": "success"}).encode() + b"\n"
    for descriptor in range(3, 64):
        with contextlib.suppress(OSError):
            if str(Path(f"/proc/self/fd/{descriptor}").readlink()).startswith("pipe:"):
                os.write(descriptor, outcome)
    raise ValueError("this failed")


@task
def tells_secrets() -> None:
    print("password", BaseHook.get_connection("guarded").password)
    print("variable", Variable.get("api_secret"))
    logging.getLogger("mine").warning("password %s", BaseHook.get_connection("guarded").password)


@task
def fills_its_disk() -> None:
    folder = Path(tempfile.gettempdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 22, resource.RLIM_INFINITY))
    print("folder", folder, flush=True)
    with (folder / "much").open("wb") as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()


@task
def ignores_sigterm() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    print("ignoring", flush=True)
    time.sleep(FOREVER)


@task
def computes_in_c() -> None:
    print("computing", flush=True)
    sum(range(10**15))


@task
def kills_the_zygote() -> None:
    print("about to kill", flush=True)
    supervisor = Path(f"/proc/{os.getppid()}/stat").read_text().rpartition(")")[2].split()
    os.kill(int(supervisor[1]), int(os.environ["SIGNAL"]))
    time.sleep(FOREVER)


@task
def changes_everything() -> None:
    """Change in this process whatever another one might see, and stay for a while."""
    stay = float(os.environ["STAY"])
    os.environ.update(PATH="/nowhere", LEFT="behind", TZ="Asia/Tokyo", PYTHONHASHSEED="0")
    time.tzset()
    os.chdir("/")
    os.umask(0o777)
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
    for number in (signal.SIGHUP, signal.SIGUSR2, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])
    locale.setlocale(locale.LC_ALL, "C")
    random.seed(1)
    tempfile.tempdir = "/nowhere"
    sys.path.insert(0, "/nowhere")
    sys.setrecursionlimit(200)
    logging.getLogger().handlers.clear()
    logging.getLogger("airflow").setLevel(logging.CRITICAL)
    json.dumps = None  # type: ignore[assignment]
    sys.modules["left_behind"] = json
    Path("/proc/self/oom_score_adj").write_text("500")
    threading.Thread(target=time.sleep, args=(FOREVER,), daemon=True).start()
    for _ in range(5):
        os.open("/dev/null", os.O_RDONLY)
    os.write(1, b"all is changed\n")
    time.sleep(stay)
    os._exit(0)


@dag(dag_id="d", schedule=None)
def d() -> None:
    works(), forks(), daemonizes(), storms(), never_stays(), closes_all(), exits_0(), exits_3(), raises_exit()
    raises_interrupt(), raises_base(), crashes(), aborts(), kills_itself(), forges(), tells_secrets()
    fills_its_disk(), ignores_sigterm(), computes_in_c(), kills_the_zygote(), changes_everything()


d()
