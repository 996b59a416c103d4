"""Environment variables: valid names, values and sizes for a new process.

Linux starts no process beyond these sizes, and reports only "Argument list too long". Errors name a variable and its
size, but never its value, because the value may be secret. No I/O; imports nothing slow, because DAG files use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from modalflow.errors import ConfigError, Described

#: Bytes of ``NAME=value``: Linux's MAX_ARG_STRLEN, 32 pages of 4 KiB, less the null character at the end (execve(2)).
LONGEST_VARIABLE = 32 * 4096 - 1

#: Limit of all variables of a deployment or a task in bytes. Linux has a quarter of the stack limit for variables and
#: arguments, usually 2 MiB. Half of it remains for arguments, Secrets and the image's variables.
LONGEST_ENVIRONMENT = 1 << 20

#: Bytes of a pointer. Each variable needs one beside its text.
_POINTER = 8

_INSTEAD = "put longer values into a file, in the image or on a Volume"


def size(name: str, value: str) -> int:
    """Return the bytes of ``NAME=value``."""
    return len(name.encode("utf-8", "surrogatepass")) + 1 + len(value.encode("utf-8", "surrogatepass"))


def whole_size(variables: Mapping[str, str]) -> int:
    """Return the bytes of all variables as Linux counts them."""
    return sum(size(name, value) + 1 + _POINTER for name, value in variables.items())


def texts(place: str, value: object) -> dict[str, str]:
    """Return a copy of a dict of texts. Raises ConfigError for other values, with types and without values."""
    expected = "a dict of texts, e.g. {'TZ': 'UTC'}"
    if not isinstance(value, Mapping):
        raise ConfigError(place, Described(f"of type {type(value).__name__}"), expected)
    for name, text in value.items():
        if not isinstance(name, str):
            raise ConfigError(f"a name in {place}", name, f"a text: {expected}")
        if not isinstance(text, str):
            raise ConfigError(f"{place}[{name!r}]", Described(f"of type {type(text).__name__}"), f"a text: {expected}")
    return dict(value)


def check(place: str, variables: Mapping[str, str]) -> None:
    """Raise ConfigError for an invalid variable, and for too many bytes together."""
    for name, value in variables.items():
        if not name or "=" in name or "\0" in name:
            raise ConfigError(
                f"a name in {place}", name, "a variable's name: not empty, without '=' and null characters"
            )
        where = f"{place}[{name!r}]"
        if "\0" in value:
            raise ConfigError(where, Described("a text with null characters"), "one without")
        if not _is_utf8(name) or not _is_utf8(value):
            raise ConfigError(where, Described("a text outside UTF-8"), "a valid text")
        if (length := size(name, value)) > LONGEST_VARIABLE:
            expected = f"at most {LONGEST_VARIABLE:,}: Linux starts no process with more; {_INSTEAD}"
            raise ConfigError(where, Described(f"{length:,} bytes long, with its name"), expected)
    if (length := whole_size(variables)) > LONGEST_ENVIRONMENT:
        longest = max(variables, key=lambda name: size(name, variables[name]))
        raise ConfigError(
            place,
            Described(f"{length:,} bytes in {len(variables):,} variables, the longest {longest!r}"),
            f"at most {LONGEST_ENVIRONMENT:,} bytes together; {_INSTEAD}",
        )


def problem(variables: Mapping[str, str], most: int) -> str:
    """Return why no process can start with these variables and ``most`` bytes for all; empty if one can.

    For use in a container: only there are the values of Modal's Secrets known.
    """
    for name, value in variables.items():
        if (length := size(name, value)) > LONGEST_VARIABLE:
            return (
                f"environment variable {name!r} is {length:,} bytes long, with its name, and Linux starts no process "
                f"with one of more than {LONGEST_VARIABLE:,}. It may come from a Secret, a profile or the task; "
                f"{_INSTEAD}"
            )
    if (length := whole_size(variables)) > most:
        longest = max(variables, key=lambda name: size(name, variables[name]))
        return (
            f"the environment variables are {length:,} bytes long together, and Linux starts no process with more than "
            f"{most:,} here. The longest is {longest!r}: {_INSTEAD}"
        )
    return ""


@contextmanager
def set_variables(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables of this process within a ``with`` block, for libraries that read their settings only there."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
