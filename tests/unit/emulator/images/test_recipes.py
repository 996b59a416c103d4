"""What the lines of an image's definition come to, in the forms in which the SDK writes them."""

from __future__ import annotations

import os
import platform

import pytest
from modal_proto import api_pb2

from modalflow.emulator.images.dockerfile.copy_line import RecipeError, Source, copied
from modalflow.emulator.images.dockerfile.lines import commands
from modalflow.emulator.images.dockerfile.pip_commands import NotAnInstall, install_of
from modalflow.emulator.images.dockerfile.run_line import RunPip
from modalflow.emulator.images.dockerfile.shell import NeedsShell, words
from modalflow.emulator.images.recipe import Copy, ImageSettings, Recipe, read

HERE = ".".join(platform.python_version_tuple()[:2])


def recipe(*lines: str, context: dict[str, Source] | None = None, base: ImageSettings | None = None) -> Recipe:
    """The recipe of a layer over a base image."""
    return read(
        api_pb2.Image(dockerfile_commands=["FROM base", *lines]),
        is_global=False,
        bases={"base": base or ImageSettings()},
        context=context or {},
        secrets={"TOKEN": "s3cret"},
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ('\'$A\' "$A" $A ${A} $B "$B"', ["$A", "1", "1", "1", ""]),
        ("'idna>=3' a\\ b # rest", ["idna>=3", "a b"]),
        ('"a\\"b" c\'d\'"e"', ['a"b', "cde"]),
    ],
)
def test_words_are_those_that_a_shell_would_pass_on(text: str, found: list[str]) -> None:
    """Quotes, escapes, variables and comments mean what they mean to a shell."""
    assert words(text, {"A": "1"}) == found


@pytest.mark.parametrize("text", ["a && b", "a | b", "idna>=3", "$(date)", "`date`", "a; b", "*.whl", "'open", '"open'])
def test_what_only_a_shell_understands_is_not_guessed(text: str) -> None:
    """Lists, pipes, redirections, substitutions and patterns are refused."""
    with pytest.raises(NeedsShell):
        words(text, {})


def test_continued_lines_and_heredocs_are_one_command() -> None:
    """A backslash continues a command, also with a space after it; a here-document's lines are no commands."""
    found = commands(["# a comment", "RUN cd /tmp && \\ ", "  # note", "  make", "RUN <<EOF\nENV A=1\nEOF", "env B=2"])
    assert [str(c) for c in found] == ["RUN cd /tmp &&   make", "RUN <<EOF", "ENV B=2"]


@pytest.mark.parametrize(
    ("run", "arguments"),
    [
        ("python -m pip install 'idna==3.4' --pre", ["idna==3.4", "--pre"]),
        ("python -m pip install -r /.requirements.txt -f /w --find-links /w", None),
        ('python3 -m pip install "git+https://me:$TOKEN@github.com/a/b"', ["git+https://me:s3cret@github.com/a/b"]),
        ("/.uv/uv pip install --python $(command -v python) --compile-bytecode idna six", ["idna", "six"]),
        (
            "/.uv/uv pip install --python $(command -v python) --compile-bytecode --find-links /w --prerelease allow "
            "--requirements /.uv/0/r.txt --no-deps",
            ["--find-links", "/w", "--pre", "--requirement", "/.uv/0/r.txt", "--no-deps"],
        ),
    ],
)
def test_the_sdks_forms_of_installing_are_recognised(run: str, arguments: list[str] | None) -> None:
    """What pip_install, uv_pip_install and their kin write is read back as arguments of pip."""
    expected = arguments if arguments is not None else run.split()[4:]
    assert list(install_of(run, {"TOKEN": "s3cret"}).arguments) == expected


@pytest.mark.parametrize(
    "run",
    [
        "python3.99 -m pip install idna",
        "/venv/bin/pip install idna",
        "uv pip install idna",
        "pip install $HOME/idna",
        "pip install idna > /dev/null",
        "pip download idna",
        "python -m pip uninstall idna",
        "python -m pip install idna && rm -rf /",
        "python -m pip install --target /usr idna",
        "python -m pip install --targ=/usr idna",
        "python -m pip install -t/usr idna",
        "/.uv/uv pip install --python $(command -v python) --torch-backend=auto torch",
        "apt-get install -y gcc",
    ],
)
def test_other_commands_are_not_taken_for_an_installation(run: str) -> None:
    """Whatever is not exactly one of those forms, or leads elsewhere, is left alone."""
    with pytest.raises(NotAnInstall):
        install_of(run, {})


@pytest.mark.parametrize(
    ("line", "variables"),
    [
        ("ENV A=1", {"A": "1"}),
        ("ENV A='two words' B=2", {"A": "two words", "B": "2"}),
        ("ENV A the old form", {"A": "the old form"}),
        ("ENV PATH=/opt/bin:$PATH", {"PATH": f"/opt/bin:{os.environ['PATH']}"}),
        ("ENV PATH='/opt/bin:$PATH'", {"PATH": "/opt/bin:$PATH"}),
        ("ENV A=$BELOW", {"A": "below"}),
        ("ENV A='$BELOW'", {"A": "$BELOW"}),
        ("ENV A=b;c", {"A": "b;c"}),
    ],
)
def test_env(line: str, variables: dict[str, str]) -> None:
    """ENV sets variables in every form that a Dockerfile knows, over those of the image below."""
    made = recipe(line, base=ImageSettings({"BELOW": "below"}))
    assert made.settings.variables == {"BELOW": "below"} | variables
    assert not made.has_work


def test_workdir_is_where_later_lines_are() -> None:
    """WORKDIR is relative to the one before; installing and copying happen there."""
    made = recipe(
        "WORKDIR /srv",
        "WORKDIR 'my app'",
        "COPY a .",
        "RUN python -m pip install ./a",
        context={"/a": Source(data=b"")},
    )
    assert made.settings.workdir == "/srv/my app"
    (copy,), (run,) = made.steps[3].actions, made.steps[4].actions
    assert isinstance(copy, Copy) and list(copy.files) == ["/srv/my app/a"]
    assert isinstance(run, RunPip) and run.workdir == "/srv/my app"


@pytest.mark.parametrize(
    ("sources", "target", "placed"),
    [
        (["."], "/", ["/d/x.py", "/d/y.txt", "/r.txt"]),
        (["."], "/srv", ["/srv/d/x.py", "/srv/d/y.txt", "/srv/r.txt"]),
        (["r.txt"], "/a/b.txt", ["/a/b.txt"]),
        (["/r.txt"], "/a/", ["/a/r.txt"]),
        (["d"], "/a", ["/a/x.py", "/a/y.txt"]),
        (["d/*.py", "r.txt"], "/a", ["/a/r.txt", "/a/x.py"]),
    ],
)
def test_copy(sources: list[str], target: str, placed: list[str]) -> None:
    """COPY places files and what is in folders as Docker does."""
    context = {"/d/x.py": Source(data=b"x"), "/d/y.txt": Source(data=b"y"), "/r.txt": Source(data=b"r")}
    assert sorted(copied(sources, target, context)) == placed


def test_copy_of_what_is_not_there() -> None:
    """A source that was not sent along fails the layer and is named."""
    with pytest.raises(RecipeError, match=r"requirements\.txt"):
        recipe("COPY requirements.txt /")


@pytest.mark.parametrize(
    "line", ["RUN apt-get update", "USER me", 'CMD ["x"]', 'SHELL ["x"]', 'ENTRYPOINT ["x"]', "COPY --from=b /a /b"]
)
def test_what_does_not_happen_here_is_said(line: str) -> None:
    """A line without an effect here is listed as such in the build's log."""
    made = recipe(line)
    assert made.steps[-1].actions == ()
    assert "not executed here" in made.steps[-1].note


@pytest.mark.parametrize(("series", "told"), [(HERE, False), ("3.99", True)])
def test_the_python_that_was_asked_for(series: str, told: bool) -> None:
    """debian_slim is silent where it is this machine's Python, and says so where it is not."""
    definition = api_pb2.Image(dockerfile_commands=[f"FROM python:{series}.1-slim-bookworm", "RUN apt-get update"])
    made = read(definition, is_global=True, bases={}, context={}, secrets={})
    assert made.has_work is told
    assert (f"Python {series} was asked for" in made.steps[0].note) is told


def test_an_image_that_would_be_pulled() -> None:
    """from_registry tells that nothing is pulled; what is installed on it is installed over this machine's packages."""
    lines = ["FROM nvidia/cuda:12", "RUN apt-get update && python -m pip install idna"]
    made = read(api_pb2.Image(dockerfile_commands=lines), is_global=False, bases={}, context={}, secrets={})
    assert [type(action) for step in made.steps for action in step.actions] == [RunPip]
    assert "not pulled" in made.steps[0].note and "not executed here" in made.steps[1].note
    assert made.settings.missing == ("FROM nvidia/cuda:12 (not pulled)", "RUN apt-get update")


def test_a_stage_made_from_an_earlier_one_has_what_that_has() -> None:
    """A Dockerfile's FROM may name a stage: its variables, folder and files go on, those of other stages do not."""
    files = {"/a": Source(data=b"a"), "/b": Source(data=b"b")}
    made = recipe(
        "FROM base AS one",
        "ENV A=1",
        "COPY a /a",
        "FROM base AS other",
        "COPY b /b",
        "FROM ONE AS two",
        "WORKDIR /srv",
        "FROM two",
        "ENV B=$A",
        context=files,
    )
    assert made.settings.variables == {"A": "1", "B": "1"}
    assert made.settings.workdir == "/srv"
    copies = [action for step in made.steps for action in step.actions if isinstance(action, Copy)]
    assert [list(copy.files) for copy in copies] == [["/a"]]


def test_earlier_stages_leave_nothing() -> None:
    """Of a Dockerfile's earlier stages only what COPY --from takes would be in the image."""
    made = recipe("ENV A=1", "COPY a /a", "FROM base", "ENV B=2", context={"/a": Source(data=b"")})
    assert made.settings.variables == {"B": "2"}
    assert all(step.actions == () for step in made.steps)


def test_options_of_a_build_without_effect_are_named() -> None:
    """Each has a line in the log of the build; what every SDK sends has none."""
    definition = api_pb2.Image(dockerfile_commands=["FROM base"], runtime="gvisor")
    assert _notes(definition) == []
    definition.gpu_config.gpu_type = "T4"
    definition.image_registry_config.secret_id = "st-1"
    assert _notes(definition) == [
        "it asks for a GPU for its build and is built without",
        "it has credentials for a registry, and no registry is asked here",
    ]


def _notes(definition: api_pb2.Image) -> list[str]:
    made = read(definition, is_global=False, bases={"base": ImageSettings()}, context={}, secrets={})
    return [step.note for step in made.steps if step.note]
