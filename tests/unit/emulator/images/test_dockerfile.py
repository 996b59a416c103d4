"""Dockerfile lines mean what they mean to Docker, or are refused."""

from __future__ import annotations

import shlex
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modal_proto import api_pb2

from modalflow.emulator.images.dockerfile.copy_line import RecipeError, Source
from modalflow.emulator.images.dockerfile.lines import DockerfileError, commands, value
from modalflow.emulator.images.recipe import Copy, Recipe, read

NASTY = [
    'it\'s "x" $HOME ${X} \\ # end\\',
    "\\",
    "'",
    "''\"\"",
    " leading and trailing ",
    "\t",
    "",
    "a=b c=d",
    "${",
    "$(rm -rf /) `x` ; | & > <",
    "\U0001f600 \u00e4 \u2028",
    "one\rtwo",
    '{"a": [1, {"b": "c\\n"}]}',
    "<<EOF",
]


def recipe(*lines: str, build_args: dict[str, str] | None = None, context: dict[str, Source] | None = None) -> Recipe:
    """The recipe of a whole Dockerfile."""
    definition = api_pb2.Image(dockerfile_commands=lines, build_args=build_args)
    return read(definition, is_global=False, bases={}, context=context or {}, secrets={})


def variables(*lines: str) -> dict[str, str]:
    return dict(recipe("FROM x", *lines).settings.variables)


def as_the_sdk_writes_it(values: dict[str, str]) -> list[str]:
    """``Image.env`` of modal/_image.py."""
    return [f"ENV {name}={shlex.quote(text)}" for name, text in values.items()]


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\n")))
@example("a\\")
def test_each_value_of_image_env_arrives_as_it_was(text: str) -> None:
    """Quotes, dollars, hashes, backslashes, blanks, control characters and every script."""
    assert variables(*as_the_sdk_writes_it({"A": text, "B": "2"})) == {"A": text, "B": "2"}


@pytest.mark.parametrize("text", NASTY)
def test_awkward_values_arrive(text: str) -> None:
    """Values that look like something else to a shell or to Docker."""
    assert variables(*as_the_sdk_writes_it({"A": text})) == {"A": text}


@given(st.text(st.characters(exclude_categories=["Cs"])), st.text(st.characters(exclude_categories=["Cs"])))
@example("a\\", "b")
@example("-----BEGIN X-----", "AAA\n")
@example("it's", "'ENV B=1")
def test_a_value_with_a_line_break_is_refused_by_name(before: str, after: str) -> None:
    """Docker ends the line there. The error names the variable, says what to do, and repeats nothing of the value."""
    with pytest.raises(RecipeError, match=r"(the value of TOKEN|null character)") as refused:
        variables(*as_the_sdk_writes_it({"TOKEN": f"{before}\n{after}"}))
    assert "Secret" in str(refused.value) or "null" in str(refused.value)


@given(
    st.lists(st.text("AB =\\'\"$#{}:-+?\n\t<E", max_size=12), max_size=4), st.sampled_from(["ENV", "RUN", "COPY", "x"])
)
def test_any_text_is_read_or_refused(texts: list[str], verb: str) -> None:
    """Whatever lines there are, reading them ends, and nothing but a RecipeError is raised."""
    try:
        recipe("FROM x", *(f"{verb} {text}" for text in texts))
    except RecipeError as error:
        assert str(error)


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["ENV A=1 \\", "", "  # why", "    B=2"], {"A": "1", "B": "2"}),
        (["ENV A=1 \\\n\n    # why\n B=2"], {"A": "1", "B": "2"}),
        (['ENV A="a \\', '  b"'], {"A": "a   b"}),
        (["env lower=1", "Env Mixed=2"], {"lower": "1", "Mixed": "2"}),
        (["ENV\tA=1"], {"A": "1"}),
        (["ENV OLD style value"], {"OLD": "style value"}),
        (["ENV OLD   'style  value' $X"], {"OLD": "style  value "}),
        (["ENV A=1", "ENV B=$A C=${A}x D=${A:-2} E=${NO:-2} F=${A:+3} G=${NO:+3} H=${NO-4} I=${A+5}"],
         {"A": "1", "B": "1", "C": "1x", "D": "1", "E": "2", "F": "3", "G": "", "H": "4", "I": "5"}),
        (["ENV A=1 B=$A"], {"A": "1", "B": ""}),
        (["ENV A=${X:-${Y:-deep}} B=\"${X:-a b}\" C=${X:-'q r'}"], {"A": "deep", "B": "a b", "C": "q r"}),
        (["ENV A=\\$X B='$X' C=\"\\$X\" D=a$ E=$1x F=100%"],
         {"A": "$X", "B": "$X", "C": "$X", "D": "a$", "E": "x", "F": "100%"}),
        (["ENV EMPTY=", "ENV A=${EMPTY-x}${EMPTY:-y}"], {"EMPTY": "", "A": "y"}),
        (["ARG V=3", "ENV A=$V"], {"A": "3"}),
        (["ARG V=3", "ENV V=4", "ENV A=$V"], {"V": "4", "A": "4"}),
        (["ARG A=1 B", "ENV X=$A$B"], {"X": "1"}),
        (["ARG GIVEN=default", "ENV A=$GIVEN"], {"A": "from outside"}),
        (["ENV A=$GIVEN"], {"A": ""}),
        (["ENV A=b;c|d&e>f(g)*?~`h`"], {"A": "b;c|d&e>f(g)*?~`h`"}),
        (["# escape=\\", "ENV A=1"], {"A": "1"}),
        (["RUN <<EOF", "ENV A=1", "EOF", "ENV B=2"], {"B": "2"}),
        (["RUN cat <<-'E' > /x", "ENV A=1", "\tE", "ENV B=2"], {"B": "2"}),
        (["RUN python -c 'print(1<<2)'", "ENV B=2"], {"B": "2"}),
    ],
)  # fmt: skip
def test_what_docker_understands(lines: list[str], found: dict[str, str]) -> None:
    """Continuations with comments and blank lines in them, defaults, both forms of ENV, ARG, here-documents."""
    made = recipe("FROM x", *lines, build_args={"GIVEN": "from outside"})
    assert made.settings.variables == found


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (["WORKDIR"], "WORKDIR needs a path"),
        (["WORKDIR ''"], "WORKDIR needs a path"),
        (["FORM python:3.12"], "'FORM' is not an instruction"),
        (["ENV"], "ENV needs a name"),
        (["ENV A"], "ENV A has no value"),
        (["ENV A=1 B"], "has no '='"),
        (["ENV A=1 # why"], "has no '='"),
        (["ENV =1"], "blank name"),
        (["ENV A='x"], "single quote is not closed"),
        (['ENV A="x'], "double quote is not closed"),
        (["ENV A=${X"], "is not closed"),
        (["ENV A=${}"], "variable's name"),
        (['ENV A="${X:?must be there}"'], "X is not set: must be there"),
        (["ENV A=${X##*/}"], "not supported here"),
        (["COPY a.txt"], "COPY needs a source and a target"),
        (["COPY"], "COPY needs a source and a target"),
        (["ADD a"], "ADD needs a source and a target"),
        (["RUN"], "RUN needs a command"),
        (["RUN <<EOF", "echo"], "EOF is not ended"),
        (["ARG"], "ARG needs a name"),
        (["FROM"], "FROM needs one image"),
        (["FROM a b c"], "FROM needs one image"),
        (["COPY nowhere.txt /"], "found no 'nowhere.txt'"),
    ],
)
def test_what_docker_refuses(lines: list[str], said: str) -> None:
    """A broken Dockerfile cannot be built, and the error says what was expected."""
    with pytest.raises(RecipeError, match=said):
        recipe("FROM x", *lines)


@pytest.mark.parametrize("lines", [["RUN true", "FROM x"], ["ENV A=1"], ["# escape=`", "FROM x"]])
def test_a_dockerfile_begins_with_from(lines: list[str]) -> None:
    """Nothing but ARG may come before the first FROM; another escape character is refused."""
    with pytest.raises(RecipeError):
        recipe(*lines)


def test_arguments_before_from_are_for_from() -> None:
    """They are in the name of the image, and in the stage only if it asks for them."""
    made = recipe("ARG TAG=3.99 X=1", "FROM --platform=linux/amd64 python:${TAG}-slim AS one", "ARG X", "ENV A=$X$TAG")
    assert made.settings.variables == {"A": "1"}
    assert made.settings.missing == ("FROM python:3.99-slim (not pulled)",)


@pytest.mark.parametrize(
    ("lines", "folder"),
    [
        (["WORKDIR /srv/app"], "/srv/app"),
        (["WORKDIR srv"], "/srv"),
        (["WORKDIR /srv", "WORKDIR a b/../c"], "/srv/c"),
        (["ENV D=/d", "WORKDIR $D/x", "workdir y"], "/d/x/y"),
        (["WORKDIR '/with blanks'"], "/with blanks"),
    ],
)
def test_workdir(lines: list[str], folder: str) -> None:
    """Absolute, relative to the one before, with variables and quotes."""
    assert recipe("FROM x", *lines).settings.workdir == folder


def test_lines_for_another_shell() -> None:
    """After SHELL, RUN is read as before if that is one of the usual shells, and named if it is not."""
    made = recipe("FROM x", 'SHELL ["/bin/bash", "-o", "pipefail", "-c"]', "RUN pip install a", 'shell ["pwsh", "-c"]',
                  "RUN pip install b", "FROM y", "RUN pip install c")  # fmt: skip
    assert [bool(step.actions) for step in made.steps] == [False] * 6 + [True]
    made = recipe("FROM x", 'SHELL ["/bin/bash", "-c"]', "RUN pip install a", 'SHELL ["pwsh"]', "RUN pip install b")
    assert made.settings.missing == ("FROM x (not pulled)", "RUN pip install b")


def test_what_is_so_anyway_is_not_missed() -> None:
    """Some instructions change nothing, others are named."""
    made = recipe("FROM x", "USER root", "ENTRYPOINT []", "EXPOSE 80", "CMD a", "LABEL a=b", "USER me", "ENTRYPOINT a")
    assert made.settings.missing == ("FROM x (not pulled)", "USER me", "ENTRYPOINT a")


def test_copy_in_its_other_forms() -> None:
    """The JSON form, modes, and a here-document that is a file of its own."""
    context = {"/a b.txt": Source(data=b"a")}
    lines = ['COPY --chmod=755 ["a b.txt", "/opt/"]', "ENV A=1", "COPY <<EOF /etc/made.txt", "it's $A", "EOF"]
    steps = recipe("FROM x", *lines, context=context).steps
    copies = [action for step in steps for action in step.actions if isinstance(action, Copy)]
    assert copies[0].files == {"/opt/a b.txt": Source(data=b"a", mode=0o755)}
    assert copies[1].files == {"/etc/made.txt": Source(data=b"it's 1\n")}


def test_files_from_windows() -> None:
    """A byte order mark, and lines that end with a carriage return, also where an instruction goes on."""
    made = recipe("\ufeffFROM x\r", "ENV A=1 \\\r", "  B=2\r", "WORKDIR /a\r")
    assert (made.settings.variables, made.settings.workdir) == ({"A": "1", "B": "2"}, "/a")


def test_long_values_are_read_in_time() -> None:
    """The time grows with the length, not with its square: the control plane answers nobody else meanwhile."""
    text = "a'\"$x\\ {}" * 20_000
    began = time.monotonic()
    assert variables(*as_the_sdk_writes_it({"A": text})) == {"A": text}
    assert time.monotonic() - began < 20


def test_value_refuses_null_characters() -> None:
    """No variable can hold one."""
    with pytest.raises(DockerfileError, match="null"):
        value("a\0", {})


def test_comments_are_no_instructions() -> None:
    """Also indented, and at the end of a continued instruction."""
    found = commands(["# one", "  # two", "RUN a \\", "# three", "", "FROM"])
    assert [str(command) for command in found] == ["RUN a FROM"]
