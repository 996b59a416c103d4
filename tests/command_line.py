"""Command lines, started often: each command is a process of its own, forked from one that has imported it.

Owns those processes. A fresh interpreter for each command costs a second, almost all of it imports; where a test is
about the start itself it runs ``python -m modal`` (see ``command``).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

#: Seconds for one command on a busy machine.
PATIENCE = 90.0

#: What is imported once: program → the statements that end with its ``main``.
PROGRAMS = {
    "modal": "import modal.__main__; main = modal.__main__.main",
    # Without Airflow, which its commands do not import either.
    "modalflow local": "import modalflow.cli.local; import modalflow.cli; main = modalflow.cli.main",
    "modalflow": """
import airflow.configuration, airflow.executors.executor_loader, modalflow.cli, modalflow.executor.modal_executor
import modalflow.operations.doctor
from modalflow.cli import doctor as _doctor, deploy as _deploy
main = modalflow.cli.main
""",
    # With the libraries alone that Airflow and its commands import: each imports and sets up Airflow itself.
    "modalflow from its start": """
import httpx, jinja2, modal, opentelemetry.sdk, pendulum, pydantic, rich.console, sqlalchemy.ext.asyncio, sqlalchemy.orm
import structlog
import modalflow.cli
main = modalflow.cli.main
""",
    "airflow": "import airflow.__main__, airflow.configuration, airflow.cli.cli_parser; main = airflow.__main__.main",
}

#: What an import prints is not an answer. The module before all others is for forks with traces on: see
#: docs/upstream-notes.md.
_ANSWERS = """
import concurrent.futures.thread
import gc, os
gc.disable()
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
"""

#: It is run in a fork for each line on standard input.
_PROGRAM = """
import json, os, sys, traceback
gc.freeze()
gc.enable()
for line in sys.stdin:
    job = json.loads(line)
    if not (pid := os.fork()):
        code = 1
        try:
            for number, path in enumerate([os.devnull, job["stdout"], job["stderr"]]):
                os.dup2(os.open(path, os.O_RDWR), number)
            os.environ.clear()
            os.environ.update(job["env"])
            sys.argv = ["command", *job["arguments"]]
            main()
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(bool(end.code))
            if isinstance(end.code, str):
                print(end.code, file=sys.stderr)
        except BaseException:
            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), file=answers, flush=True)
"""


def command(*arguments: str) -> list[str]:
    """The command that a user types as ``modal …``."""
    return [sys.executable, "-m", "modal", *arguments]


def variables(env: Mapping[str, str]) -> dict[str, str]:
    """This process's environment with a control plane's, for output that is wide and plain."""
    return {**os.environ, **env, "COLUMNS": "200", "NO_COLOR": "1"}


class CommandLine:
    """Runs the commands of one of ``PROGRAMS`` in one environment, which its modules see when they are imported."""

    def __init__(self, env: Mapping[str, str], program: str = "modal") -> None:
        self._env = variables(env)
        self._program = subprocess.Popen(
            [sys.executable, "-c", _ANSWERS + PROGRAMS[program] + _PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self._env,
        )

    def __enter__(self) -> CommandLine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._program.communicate(timeout=PATIENCE)

    def run(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        environ: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> subprocess.CompletedProcess[str]:
        """Run it with these arguments to its end, however that is, within ``patience`` seconds.

        ``env`` are variables above those of this command line, ``environ`` is all that there are.
        """
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        with _files() as (stdout, stderr):
            whole = {**(self._env if environ is None else environ), **(env or {})}
            job = {"arguments": arguments, "env": whole, "stdout": str(stdout), "stderr": str(stderr)}
            self._program.stdin.write(json.dumps(job).encode() + b"\n")
            self._program.stdin.flush()
            if not select.select([self._program.stdout], [], [], patience)[0]:
                self._program.kill()
                raise AssertionError(f"{' '.join(arguments)} did not end; it said:\n{stdout.read_text()}")
            code = int(self._program.stdout.readline())
            return subprocess.CompletedProcess(arguments, code, stdout.read_text(), stderr.read_text())

    def __call__(self, *arguments: str) -> str:
        """Run it with these arguments and return what it printed; it must succeed."""
        done = self.run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@contextmanager
def _files() -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory() as folder:
        stdout, stderr = Path(folder, "stdout"), Path(folder, "stderr")
        stdout.touch()
        stderr.touch()
        yield stdout, stderr
