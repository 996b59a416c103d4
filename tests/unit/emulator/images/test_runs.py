"""What of a RUN is executed, what is named as not executed, and what must fail."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modalflow.emulator.images.dockerfile.lines import Command, DockerfileError
from modalflow.emulator.images.dockerfile.run_line import Fail, RunOutcome, RunPip, outcome


def judged(text: str, **exported: str) -> RunOutcome:
    return outcome(Command("RUN", text), exported, {"ARGUMENT": "1.0"}, "/srv")


def installs(text: str, **exported: str) -> list[tuple[str, ...]]:
    return [action.install.arguments for action in judged(text, **exported).actions if isinstance(action, RunPip)]


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("pip install cowsay", ("cowsay",)),
        ("pip3 install --no-cache-dir cowsay", ("--no-cache-dir", "cowsay")),
        ("python -m pip install cowsay", ("cowsay",)),
        ("python3 -m pip install     cowsay", ("cowsay",)),
        ("/usr/local/bin/python -m pip install cowsay", ("cowsay",)),
        ("pip --no-cache-dir install cowsay", ("--no-cache-dir", "cowsay")),
        ("PIP_INDEX_URL=https://x pip install cowsay", ("cowsay",)),
        ("uv pip install --system cowsay", ("cowsay",)),
        ("UV_SYSTEM_PYTHON=1 uv pip install cowsay", ("cowsay",)),
        ("uv pip install --python python3 cowsay", ("cowsay",)),
        ("pip install 'cowsay>=6' \"six\" # why", ("cowsay>=6", "six")),
        ("pip install cowsay==$ARGUMENT", ("cowsay==1.0",)),
        ("pip install $NOTHING cowsay", ("cowsay",)),
        ('["pip", "install", "cow say"]', ("cow say",)),
        ('["sh", "-c", "pip install cowsay"]', ("cowsay",)),
        ("--mount=type=cache,target=/root/.cache pip install cowsay", ("cowsay",)),
        ("set -eux; pip install cowsay", ("cowsay",)),
    ],
)
def test_what_installs_is_executed(text: str, arguments: tuple[str, ...]) -> None:
    """The ways in which people write pip and uv in run_commands and Dockerfiles."""
    assert installs(text) == [arguments]
    assert judged(text).missing == []


def test_parts_of_a_list_that_install_are_executed() -> None:
    """With the folder and the variables that the parts before them set; the other parts are named."""
    found = judged("apt-get update && cd /app && export A=1 && pip install . && python -c 'import x; y()'")
    assert found.missing == ["apt-get update", "python -c 'import x; y()'"]
    (pip,) = found.actions
    assert isinstance(pip, RunPip)
    assert (pip.workdir, pip.variables["A"], pip.install.arguments) == ("/app", "1", (".",))


@pytest.mark.parametrize(
    "text",
    [
        "pip install cowsay || true",
        "(pip install cowsay)",
        "if true; then pip install cowsay; fi",
        "for p in cowsay; do pip install $p; done",
        "pip install cowsay > /dev/null",
        "cat list | xargs pip install",
        "pip install $(cat list)",
        "pip install ~/cowsay",
        ". /venv/bin/activate && pip install cowsay",
        "source /venv/bin/activate && pip install cowsay",
        "--mount=type=bind,target=/x pip install -r /x/r.txt",
        "pip install cowsay &",
        "pip install -t /x cowsay",
        "false || pip install cowsay",
        "true || pip install cowsay",
    ],
)
def test_what_is_not_certain_is_not_executed(text: str) -> None:
    """Where it takes a shell to know what pip would do, nothing is executed, and the line is named."""
    found = judged(text)
    assert found.actions == []
    assert found.missing and found.why


@pytest.mark.parametrize("text", ["false && pip install cowsay", "exit 0 && pip install x", "exit 0; pip install x"])
def test_what_is_never_reached_is_not_executed(text: str) -> None:
    """What comes after an exit, or after a command that fails."""
    assert installs(text) == []


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("exit 1", 1),
        ("exit 300", 44),
        ("false", 1),
        ("exit 1; true", 1),
        ("make && false", 1),
        ("make; exit 3", 3),
        ("true && exit 2", 2),
        ("set -e; false; true", 1),
        ("pip install x && exit 1", 1),
        ("echo it's", 2),
        ('echo "', 2),
        ("true &&", 2),
        ("&& true", 2),
        ("; true", 2),
        ("echo $(date", 2),
        ('["sh", "-c", "exit 7"]', 7),
        ("false\n", 1),
        ("exit 1 # why", 1),
        ("echo a # it's\nexit 4", 4),
        ("exit\t5", 5),
    ],
)
def test_what_fails_whatever_happens_fails_the_build(text: str, code: int) -> None:
    """An exit code other than 0 on every way through the line, and what no shell can read."""
    *_, fail = judged(text).actions
    assert isinstance(fail, Fail)
    assert fail.exit_code == code


@pytest.mark.parametrize(
    "text",
    [
        "make",
        "exit 0",
        "exit",
        "false; true",
        "make && exit 1; true",
        "exit 1 || true",
        "echo exit 1",
        "test -s /x && echo GOOD",
        "test -s /x && exit 1; echo",
        "echo hello > /etc/made.txt",
        "cd /x && exit",
        "! false",
        "echo 'exit 1' && true",
        "grep '(' file",
        "echo 2>&1",
        "make &> log",
    ],
)
def test_what_may_succeed_does_not_fail_the_build(text: str) -> None:
    """A guess is no reason to fail."""
    assert not any(isinstance(action, Fail) for action in judged(text).actions)


@pytest.mark.parametrize("text", ["pip install --upgrade pip", "python -m pip install -U pip setuptools wheel uv==1"])
def test_the_installers_themselves_are_this_machines(text: str) -> None:
    """To upgrade them changes nothing that a container has."""
    assert (judged(text).actions, judged(text).missing) == ([], [])


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ("pip install -r requirements.txt", ("-r", "/srv/requirements.txt")),
        ("pip install -rrequirements.txt -c ../c.txt", ("-r/srv/requirements.txt", "-c", "/srv/../c.txt")),
        ("cd app && pip install --requirement=r.txt .", ("--requirement=/srv/app/r.txt", ".")),
        ("pip install -r /r.txt -r https://x/r.txt", ("-r", "/r.txt", "-r", "https://x/r.txt")),
        ("uv pip install --system -r r.txt", ("--requirement", "/srv/r.txt")),
        ("pip install --compile --root-user-action=ignore x", ("--compile", "--root-user-action=ignore", "x")),
    ],
)
def test_files_with_requirements_are_in_the_image(text: str, arguments: tuple[str, ...]) -> None:
    """Where the line looks for them is the image's folder, never one of the control plane's."""
    assert installs(text) == [arguments]


def test_a_run_without_a_command() -> None:
    """As Docker: it cannot be built."""
    with pytest.raises(DockerfileError, match="RUN needs a command"):
        judged("--network=none")


@given(st.text("ab '\"\\$(){};&|<>#\n=`!", max_size=20))
def test_any_text_is_judged(text: str) -> None:
    """Whatever a RUN holds, it is judged or refused."""
    try:
        judged(text)
    except DockerfileError as error:
        assert str(error)


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n"), min_size=1), min_size=1))
def test_quoted_arguments_arrive_as_they_were(arguments: list[str]) -> None:
    """What shlex.join writes, as the SDK does, is what pip gets."""
    arguments = [argument for argument in arguments if not argument.startswith("-")]
    if arguments:
        found = installs(f"python -m pip install {shlex.join(arguments)}")
        assert found in ([tuple(arguments)], []) and (found or set(arguments) <= {"pip", "uv", "wheel", "setuptools"})
