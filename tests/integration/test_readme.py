"""The commands and the code of README.md and of the pages beside it, run as they are written."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

import modalflow
from modalflow.cli import main
from modalflow.config.settings import OPTIONS
from modalflow.executor.submission.resources import read_executor_config
from modalflow.worker.deploy.worker import read_worker

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text()
LOCAL = (CHECKOUT / "docs/local-control-plane.md").read_text()
CONFIGURATION = (CHECKOUT / "docs/configuration.md").read_text()
INDEX = (CHECKOUT / "docs/index.md").read_text()
PAGES = subprocess.check_output(
    ["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=CHECKOUT, text=True
).split()

APP = """
import modal

app = modal.App("from-the-readme")


@app.function()
def hello():
    return "hello"
"""


def blocks(language: str, page: str) -> list[str]:
    """Return the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def block(language: str, text: str, page: str) -> str:
    """Return the fenced block of a language that holds a text."""
    (found,) = (body for body in blocks(language, page) if text in body)
    return found


def commands(body: str) -> list[str]:
    """The command lines of a console block, without the remarks behind them."""
    return [line.removeprefix("$ ").split("  #")[0].strip() for line in body.splitlines() if line.startswith("$ ")]


@pytest.fixture
def user(tmp_path: Path) -> dict[str, str]:
    """The environment of a user who has installed modalflow and nothing configured."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MODAL", "XDG_", "AIRFLOW"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
    return kept | {"PATH": path, "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}


def typed(lines: list[str], user: dict[str, str], folder: Path) -> str:
    """Type lines into a shell that gives up at the first that fails; all that it printed."""
    script = "\n".join(["set -eu", *lines])
    done = subprocess.run(["bash", "-c", script], env=user, cwd=folder, capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_local_control_plane(user: dict[str, str], tmp_path: Path) -> None:
    """Every command of that chapter works as it is written, in the order in which it is written."""
    (tmp_path / "my_app.py").write_text(APP)
    body = block("console", "modalflow local status", LOCAL)
    run, start, status, stop = commands(body)
    assert "deployed" in typed([run], user, tmp_path).lower()
    (use,) = re.findall(r"then: (eval .+)", body)
    try:
        told = typed([start, use, status, 'echo "at $MODAL_SERVER_URL"', "modal app list --json"], user, tmp_path)
    finally:
        stopped = typed([stop], user, tmp_path)
    (url,) = re.findall(r"^at (.+)", told, re.MULTILINE)
    assert f"runs at {url}" in told
    assert "has stopped" in stopped


def test_what_the_local_control_plane_does_besides(user: dict[str, str], tmp_path: Path) -> None:
    """A state folder, declared resources and faults are had with the options as they are written."""
    (tmp_path / "my_app.py").write_text(APP)
    keep, gpus, misbehave = commands(block("console", "survives restarts", LOCAL))
    try:
        typed([keep, "modalflow local stop", gpus], user, tmp_path)
    finally:
        typed(["modalflow local stop"], user, tmp_path)
    assert (tmp_path / ".local/state/my-modal/state.sqlite3").exists()
    assert "App completed" in typed([misbehave], user, tmp_path)


def test_the_context_manager(user: dict[str, str], tmp_path: Path) -> None:
    """The lines for Python run as they are written, with an SDK call where the dots are."""
    body = block("python", "LocalModal", LOCAL).replace("...", "print(len(modal.Dict.objects.list()))")
    (tmp_path / "example.py").write_text(f"import modal\n{body}")
    assert typed(["python example.py"], user, tmp_path).strip() == "0"


def test_the_profile_and_the_dag_belong_together(tmp_path: Path) -> None:
    """The file of profiles can be read, and the queue of the DAG's task is one of them."""
    (tmp_path / "worker.py").write_text(block("python", "modalflow.Worker", README))
    worker = read_worker(str(tmp_path / "worker.py"))
    found: dict[str, Any] = {}
    exec(compile(block("python", "@dag", README), "README.md", "exec"), found)  # the DAG is made at its end
    (embed,) = found["embeddings"]().tasks
    assert embed.queue in [profile.name for profile in worker.profiles]
    assert embed.executor_config == modalflow.modal_config(timeout=3600)


def test_what_a_task_may_ask_for() -> None:
    """The example is accepted, and the keys that are listed are those that are known."""
    (example,) = re.findall(r"@task\(executor_config=(\{.+\})\)", CONFIGURATION)
    asked = read_executor_config(ast.literal_eval(example))
    assert asked.resources.plain()["gpu"] == "H100:2"
    with pytest.raises(Exception, match="known: ") as refusal:
        read_executor_config({"modal": {"no such key": 1}})
    known = re.search(r"known: ([\w, ]+)", str(refusal.value))
    assert known is not None
    listed = CONFIGURATION.partition("## Options of a task")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", listed, re.MULTILINE)) == set(known[1].split(", "))


def named_options() -> list[str]:
    listed = re.search(r"most important options:(.+?)\.\n", INDEX, re.DOTALL)
    return re.findall(r"`(\w+)`", listed[1]) if listed else []


def test_the_options_that_matter_first_exist() -> None:
    """Every option that is named is one."""
    assert set(named_options()) < {option.name for option in OPTIONS}
    assert named_options()


def modalflow_commands() -> Iterator[str]:
    """Return every ``modalflow …`` command line of the pages, in blocks and in sentences."""
    for page in PAGES:
        if page == "CHANGELOG.md":
            continue  # It names what there was.
        text = (CHECKOUT / page).read_text()
        for body in blocks("console", text):
            yield from (line for line in commands(body) if line.startswith("modalflow "))
        yield from re.findall(r"`(modalflow [a-z][^`\n]*)`", text)


@pytest.mark.parametrize("line", sorted(set(modalflow_commands())))
def test_commands_and_their_options_exist(line: str) -> None:
    """No command and no option is named that ``modalflow`` does not have."""
    command: click.Command = main
    words = line.split()[1:]
    while words and isinstance(command, click.Group):
        found = command.get_command(click.Context(command), words.pop(0))
        assert found is not None
        command = found
    known = {name for parameter in command.params for name in parameter.opts}
    given = words[: words.index("--")] if "--" in words else words
    assert {word for word in given if word.startswith("--")} <= known


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """What a page of this project links to within the project is there."""
    links = re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", (CHECKOUT / page).read_text())
    inside = [link for link in links if "://" not in link]
    assert [link for link in inside if not (CHECKOUT / page).parent.joinpath(link).exists()] == []
