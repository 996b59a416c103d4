"""Values of variables get through the image of a worker as they were."""

from __future__ import annotations

import base64
import random
import shlex
from unittest.mock import MagicMock

import modal
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from modal_proto import api_pb2

from modalflow.emulator.images.recipe import read
from modalflow.errors import ConfigError
from modalflow.names import PACKED_VARIABLE, Names
from modalflow.worker.deploy.app_builder import build_app
from modalflow.worker.deploy.dag_source import DagSource
from modalflow.worker.deploy.profile import Profile
from modalflow.worker.packing import packed, unpack

VALUES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.dictionaries(st.from_regex(r"[A-Z][A-Z0-9_]*", fullmatch=True), VALUES))
@example({"CERT": "-----BEGIN X-----\nAAA\n-----END X-----\n", "PLAIN": "it's $HOME\\"})
@example(
    {"JSON": '{\n  "a": "\u00e4 \U0001f600 # ${X}"\n}', "END": "\\\n", "RETURN": "a\rb", "EMPTY": "", "HASH": "# x"}
)
def test_every_value_arrives(variables: dict[str, str]) -> None:
    """What is packed is one printable line for each variable, and unpacks to what it was."""
    made = packed(variables)
    assert all(value.isprintable() and "\n" not in shlex.quote(value) for value in made.values())
    # What Image.env of modal/_image.py writes, as Docker reads it.
    lines = ["FROM base", *(f"ENV {name}={shlex.quote(value)}" for name, value in made.items())]
    definition = api_pb2.Image(dockerfile_commands=lines)
    arrived = dict(read(definition, is_global=False, bases={}, context={}, secrets={}).settings.variables)
    unpack(arrived)
    assert arrived == variables


def test_plain_values_stay_readable() -> None:
    """Only what needs it is packed: an image's variables can be read by a person."""
    assert packed({"TZ": "UTC", "PATH": "/a b:$PATH"}) == {"TZ": "UTC", "PATH": "/a b:$PATH"}


def test_a_secret_of_the_same_name_counts() -> None:
    """Variables of Secrets lie over those of the image, also over a packed one."""
    environ = packed({"CERT": "a\nb"}) | {"CERT": "of the Secret"}
    unpack(environ)
    assert environ == {"CERT": "of the Secret"}


def test_nothing_is_unpacked_that_was_not_packed() -> None:
    """A value that looks packed is left alone unless the image says that it is."""
    environ = {"CERT": packed({"CERT": "a\nb"})["CERT"]}
    unpack(environ)
    assert PACKED_VARIABLE not in environ
    assert environ["CERT"].startswith("modalflow-packed:")


def test_a_value_that_does_not_fit_once_packed_is_refused() -> None:
    """Otherwise no container of the worker would start, and Linux would say only that a list is too long."""
    value = base64.encodebytes(random.Random(1).randbytes(96_000)).decode()
    source = MagicMock(spec=DagSource)
    source.variables.return_value = {}
    with pytest.raises(
        ConfigError, match=r"packed because of .* such as line breaks,\['PEM'\] is 13\d,\d{3} bytes long"
    ):
        build_app(Names(), image=modal.Image.debian_slim(), profiles=[Profile(env={"PEM": value})], dags=source)
