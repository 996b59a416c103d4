"""What a RUN becomes where commands are executed, and which installations need no command."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from modal_proto import api_pb2

from modalflow.emulator.images.building import interpreters
from modalflow.emulator.images.building.debian_packages import without_installed
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.building.root_below import RootBelow
from modalflow.emulator.images.dockerfile.actions import Begin, ProvideUv
from modalflow.emulator.images.dockerfile.run_command import RunCommand
from modalflow.emulator.images.dockerfile.run_line import RunPip
from modalflow.emulator.images.recipe import Action, ImageSettings, Recipe, read


def recipe(*lines: str, base: ImageSettings | None = None, root: RootBelow | None = None) -> Recipe:
    """The recipe of lines over a base image."""
    definition = api_pb2.Image(dockerfile_commands=["FROM base", *lines])
    bases = {"base": base or ImageSettings()}
    return read(definition, is_global=False, bases=bases, context={}, secrets={}, root=root or RootBelow())


def actions(made: Recipe) -> list[Action]:
    return [action for step in made.steps for action in step.actions]


@pytest.mark.parametrize(
    ("line", "program"),
    [
        ("RUN make && pip install x", ("/bin/sh", "-c", "make && pip install x")),
        ("RUN echo one", ("/bin/sh", "-c", "echo one")),
        ('RUN ["make", "a b"]', ("make", "a b")),
        ("RUN <<EOF\nmake\nmake install\nEOF", ("/bin/sh", "-c", "make\nmake install\n")),
        ("RUN cat <<EOF > /a\n$A\nEOF", ("/bin/sh", "-c", "cat <<EOF > /a\n$A\nEOF")),
        ("RUN --mount=type=cache,target=/x make", ("/bin/sh", "-c", "make")),
    ],
)
def test_the_program_of_a_run(line: str, program: tuple[str, ...]) -> None:
    """A shell runs a line as it is, and a here-document alone; a list runs without a shell."""
    (found,) = actions(recipe(line))
    assert isinstance(found, RunCommand) and found.program == program


def test_settings_hold_for_later_commands_and_layers() -> None:
    """SHELL, USER, WORKDIR, ENV and ARG; the last one is for this layer alone."""
    lines = ("ARG A=1", 'SHELL ["/bin/bash", "-ec"]', "USER nobody", "WORKDIR /srv", "ENV B=2", "RUN true")
    first = recipe(*lines)
    (found,) = actions(first)
    assert isinstance(found, RunCommand)
    assert (found.program[:2], found.user, found.workdir) == (("/bin/bash", "-ec"), "nobody", "/srv")
    assert found.variables == {"A": "1", "B": "2"}
    (later,) = actions(recipe("RUN true", base=first.settings))
    assert isinstance(later, RunCommand)
    assert (later.program[0], later.user, dict(later.variables)) == ("/bin/bash", "nobody", {"B": "2"})


def test_installations_alone_are_left_to_pip() -> None:
    """uv's program is provided only for a line that needs it."""
    copy = "COPY --from=ghcr.io/astral-sh/uv:0.5 /uv /.uv/uv"
    install = "RUN /.uv/uv pip install --python $(command -v python) --compile-bytecode six"
    assert [type(action) for action in actions(recipe(copy, install))] == [RunPip]
    found = actions(recipe(copy, "RUN /.uv/uv sync --project=/.uv"))
    assert found[0] == ProvideUv("/.uv/uv") and isinstance(found[1], RunCommand)


def test_the_python_of_a_base_image(tmp_path: Path) -> None:
    """Another version than this machine's is looked for; over another root, the root's own is."""
    definition = api_pb2.Image(dockerfile_commands=["FROM python:3.99-slim"])
    other = RootBelow(tmp_path, "x", {"PATH": "/opt/bin"})
    for root, series in ((RootBelow(), "3.99"), (other, "3.99")):
        made = read(definition, is_global=False, bases={}, context={}, secrets={}, root=root)
        assert actions(made) == [Begin(series)]
        assert "no registry is asked" in made.steps[0].note
        assert made.settings.variables == root.variables
    assert interpreters.on_host("3.99") is None


def test_interpreters_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On PATH, but no shim of pyenv; in a tree behind symlinks; a virtual environment of a layer on PATH."""
    (tmp_path / "shims").mkdir()
    (tmp_path / "bin").mkdir()
    for folder in ("shims", "bin"):
        (tmp_path / folder / f"python{interpreters.HERE}").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}/shims:{tmp_path}/bin")
    found = interpreters.on_host(interpreters.HERE)
    assert found is not None and found.series == interpreters.HERE
    layer, base = tmp_path / "layer", tmp_path / "base"
    for made in (layer / ".uv/.venv/bin", base / "usr/bin"):
        made.mkdir(parents=True)
    (base / "usr/bin/python3.42").touch()
    (base / "usr/bin/python3").symlink_to("python3.42")
    (layer / ".uv/.venv/bin/python").symlink_to("/usr/bin/python3.42")
    tree = LayeredTree((layer,), base)
    assert interpreters.in_tree(tree) == interpreters.Interpreter("/usr/bin/python3.42", "3.42")
    assert interpreters.in_tree(tree, "3.41") is None
    first = interpreters.first_of_layers(tree, "/usr/bin:/.uv/.venv/bin")
    assert first == interpreters.Interpreter("/.uv/.venv/bin/python", "3.42")


def test_installed_debian_packages(tmp_path: Path) -> None:
    """Installations of what is there are dropped, lists are updated only for others; removed packages do not count."""
    (tmp_path / "var/lib/dpkg").mkdir(parents=True)
    (tmp_path / "var/lib/dpkg/status").write_text(
        "Package: git\nStatus: install ok installed\n\nPackage: gone\nStatus: deinstall ok config-files\n"
    )
    tree = LayeredTree((), tmp_path)

    def left(*packages: str) -> list[str]:
        made = recipe("RUN apt-get update", *(f"RUN apt-get install -y {name}" for name in packages))
        return [step.text for step in without_installed(made, tree).steps if step.actions]

    assert left("git") == []
    assert left("gone") == ["RUN apt-get update", "RUN apt-get install -y gone"]
    assert left("git", "git gone") == ["RUN apt-get update", "RUN apt-get install -y git gone"]
    assert left("$X") == ["RUN apt-get update", "RUN apt-get install -y $X"]
