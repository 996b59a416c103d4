"""Environment variables that a process can have, compared with what Linux says."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

import modalflow
from modalflow.config.variables import LONGEST_ENVIRONMENT, LONGEST_VARIABLE, check, problem, size, whole_size
from modalflow.errors import ConfigError
from modalflow.support.linux import most_for_variables


def starts(variables: dict[str, str]) -> bool:
    """Whether Linux starts a program with these variables."""
    try:
        subprocess.run(["/bin/true"], env=variables, check=True)
    except OSError as error:
        assert error.strerror == "Argument list too long"
        return False
    return True


@pytest.mark.parametrize(("name", "letter"), [("A", "x"), ("ENCODED", "é"), ("A" * 100, "任")])
def test_the_longest_variable_is_linuxs(name: str, letter: str) -> None:
    """What is accepted starts; one byte more is refused here, with the name and without the value, as Linux would."""
    most, rest = divmod(LONGEST_VARIABLE - len(name) - 1, len(letter.encode()))
    value = letter * most + "x" * rest
    check("env", {name: value})
    assert starts({name: value}) and not problem({name: value}, most_for_variables())
    assert not starts({name: value + "x"})
    with pytest.raises(ConfigError, match=r"\] is 131,072 bytes long, with its name; expected at most 131,071"):
        check("env", {name: value + "x"})
    said = problem({name: value + "x"}, most_for_variables())
    assert repr(name) in said and "131,072 bytes long" in said and letter * 10 not in said


def test_what_is_accepted_together_starts() -> None:
    """As much as a deployment may have, and as much as a container may have, leaves room for arguments."""
    many = {f"A{number}": "x" * 10_000 for number in range(104)}
    check("env", many)
    assert whole_size(many) <= LONGEST_ENVIRONMENT and starts(many)
    more = many | {"B": "x" * 10_000}
    with pytest.raises(ConfigError, match=r"env is 1,05.* bytes in 105 variables, the longest 'A100'"):
        check("env", more)
    most = most_for_variables()
    full = {f"A{number}": "x" * 100_000 for number in range(most // 100_020)}
    assert not problem(full, most) and starts(full)
    too_much = full | {f"B{number}": "x" * 100_000 for number in range(3)}
    assert not starts(too_much) and "no process with more than" in problem(too_much, most)


@given(st.dictionaries(st.text(max_size=5), st.text(max_size=20), max_size=5))
def test_what_is_accepted_is_what_a_process_can_have(variables: dict[str, str]) -> None:
    """No name and no value that Python or Linux refuses; every error names no value."""
    try:
        check("env", variables)
    except ConfigError as error:
        assert "env" in str(error)
        return
    for name, value in variables.items():
        assert name and "=" not in name and "\0" not in name + value
        assert len(f"{name}={value}".encode()) == size(name, value)


def test_a_deployment_counts_what_comes_together() -> None:
    """The Worker's variables and a profile's are in one image: each alone may be short enough."""
    half = {f"A{number}": "x" * 100_000 for number in range(6)}
    other = {f"B{number}": "x" * 100_000 for number in range(6)}
    profile = modalflow.Profile("big", env=half)
    assert modalflow.Worker(profiles=[profile])
    with pytest.raises(ConfigError, match=r"env of modalflow.Worker and modalflow.Profile\('big'\) is 1,200,"):
        modalflow.Worker(profiles=[profile], env=other)
