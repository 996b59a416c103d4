"""Checks of values for Modal. Each returns a canonical form, so equal requests are equal.

Profiles (at deployment), tasks (at parsing and at submission) and the record of a deployment share them. Each check
gets the place, for the error, and the value. It raises ConfigError. Imports nothing slow: DAG files use it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from modalflow.config import mounts
from modalflow.config import variables as environment
from modalflow.errors import ConfigError
from modalflow.names import RESERVED_VARIABLES

Check = Callable[[str, Any], Any]

#: Modal's bounds, as documented in August 2026: seconds of a Function's timeout, MiB of memory, containers' inputs.
LONGEST_TIMEOUT = 24 * 3600
LEAST_MEMORY = 128
MOST_INPUTS = 1000
MOST_GPUS = 8
#: The most memory in MiB to which a task grows without a limit of its own. Modal refuses a request above a maximum of
#: its own, and does not document the figure (modal.com/docs/guide/resources).
MOST_MEMORY = 336 * 1024

#: The value of ``cpu`` and ``memory`` for tasks that are sized by their last runs.
AUTO = "auto"

#: The largest factor of growth: a larger one is a mistake.
_MOST_GROWTH = 10

#: Modal's GPUs. Modal may know newer ones, too.
KNOWN_GPUS = (
    "T4",
    "L4",
    "A10",
    "A10G",
    "L40S",
    "A100",
    "A100-40GB",
    "A100-80GB",
    "RTX-PRO-6000",
    "H100",
    "H100!",
    "H200",
    "B200",
    "B200+",
    "B300",
    "ANY",
)

#: Modal's API has sizes as unsigned numbers of 32 bits, and cores in thousandths.
_MOST = 2**32 - 1
_MOST_CORES = _MOST // 1000

#: Limits of one task: Secrets, Volumes or regions, and characters of a word. They are far above any use. The
#: scheduler's process keeps, compares and logs these values.
_MOST_OBJECTS = 100
_LONGEST_WORD = 64

_GPU = re.compile(r"(?P<kind>[A-Za-z][A-Za-z0-9_-]*[!+]?)(?::(?P<count>[1-9]\d*))?")
_MEMORY = re.compile(r"(?P<amount>\d+(?:\.\d+)?) ?(?P<unit>[MG])iB?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def _is_number(value: object) -> bool:
    """Return whether Modal's messages can hold this number: finite, and of 32 bits."""
    return isinstance(value, int | float) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def _pair(place: str, value: Any, read: Callable[[Any], Any], expected: str) -> Any:
    """Return one amount, or a pair of reservation and limit."""
    parts = tuple(value) if isinstance(value, list | tuple) else (value,)
    amounts = tuple(read(part) for part in parts)
    if len(parts) not in (1, 2) or None in amounts:
        raise ConfigError(place, value, expected)
    if len(amounts) == 2 and amounts[1] < amounts[0]:
        raise ConfigError(place, value, f"a limit of at least the reservation: {expected}")
    return amounts if len(amounts) == 2 else amounts[0]


def cores(place: str, value: Any) -> float | tuple[float, float]:
    """Processor cores, or (reserved, limit)."""

    def read(part: Any) -> float | None:
        return float(part) if _is_number(part) and 0 < part <= _MOST_CORES else None

    found: float | tuple[float, float] = _pair(
        place, value, read, "a positive number of cores or (reserved, limit), e.g. 2 or (1, 4)"
    )
    return found


def mebibytes(place: str, value: Any) -> int | tuple[int, int]:
    """MiB, also written as "512MiB" or "4GiB", or (reserved, limit)."""
    found: int | tuple[int, int] = _pair(
        place,
        value,
        _mib,
        f"MiB from {LEAST_MEMORY} up, a text such as '4GiB', or (reserved, limit), e.g. 1024 or (1024, 2048)",
    )
    return found


def or_auto(check: Check) -> Check:
    """Return a check that also accepts "auto"."""

    def checked(place: str, value: Any) -> Any:
        if isinstance(value, str) and value.strip().lower() == AUTO:
            return AUTO
        try:
            return check(place, value)
        except ConfigError as error:
            near = isinstance(value, str) and difflib.get_close_matches(value.strip().lower(), [AUTO], cutoff=0.5)
            hint = " (did you mean 'auto'?)" if near else ""
            raise ConfigError(place, value, f"{error.expected}, or 'auto'{hint}") from None

    return checked


def most_memory(place: str, value: Any) -> int:
    """MiB of one container at most, also written as "4GiB"."""
    found = _mib(value)
    if found is None:
        raise ConfigError(place, value, f"MiB from {LEAST_MEMORY} up, or a text such as '16GiB'")
    return found


def growth(place: str, value: Any) -> float:
    """Return a factor of growth."""
    if not _is_number(value) or not 1 < value <= _MOST_GROWTH:
        raise ConfigError(place, value, f"a factor above 1, at most {_MOST_GROWTH}, e.g. 2")
    return float(value)


def check_limits(place: Callable[[str], str], options: Mapping[str, Any]) -> None:
    """Check that no limit of growth is below its own amount. ``place`` names an option for the error."""
    for name, unit in (("memory", "MiB"), ("timeout", "seconds")):
        asked, limit = options.get(name), options.get(f"{name}_limit")
        least = max(asked) if isinstance(asked, list | tuple) else asked
        if limit is not None and isinstance(least, int | float) and limit < least:
            raise ConfigError(place(f"{name}_limit"), limit, f"at least its {name}, {least:g} {unit}")


def _mib(part: Any) -> int | None:
    if isinstance(part, str):
        match = _MEMORY.fullmatch(part.strip())
        if match is None:
            return None
        part = float(match["amount"]) * (1024 if match["unit"] == "G" else 1)
    return int(part) if _is_number(part) and part == int(part) and part >= LEAST_MEMORY else None


def gpu(place: str, value: Any) -> str:
    """Return a GPU model, with ``:n`` for several: upper case, without a count of one."""
    match = _GPU.fullmatch(value.strip()) if isinstance(value, str) else None
    count = int(match["count"] or 1) if match is not None else 0
    if match is None or count > MOST_GPUS:
        raise ConfigError(place, value, f"a GPU, with ':n' for up to {MOST_GPUS} of them, e.g. 'T4' or 'H100:2'")
    kind = match["kind"].upper()
    return kind if count == 1 else f"{kind}:{count}"


def gpus(place: str, value: Any) -> str | list[str]:
    """Return a GPU, or a list of GPUs in order of preference."""
    if not isinstance(value, list | tuple):
        return gpu(place, value)
    if not value:
        raise ConfigError(place, value, "a GPU or a list of them, e.g. ['H100', 'A100-80GB']")
    found = [gpu(place, each) for each in value]
    return found[0] if len(found) == 1 else found


def unknown_gpu(value: str | Iterable[str] | None) -> str:
    """Return a warning about unknown GPUs; empty if all are known."""
    wanted = [value] if isinstance(value, str) else list(value or ())
    unknown = [each for each in wanted if each.partition(":")[0] not in KNOWN_GPUS]
    if not unknown:
        return ""
    near = difflib.get_close_matches(unknown[0].partition(":")[0], KNOWN_GPUS, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"GPU {unknown[0]!r} is unknown to this modalflow ({hint}known: {', '.join(KNOWN_GPUS)})"


def seconds(low: int = 1, high: int = LONGEST_TIMEOUT, example: int = 3600) -> Check:
    """Whole seconds."""

    def check(place: str, value: Any) -> int:
        if not _is_number(value) or not low <= value <= high:
            raise ConfigError(place, value, f"seconds from {low} to {high}, e.g. {example}")
        return int(value)

    return check


def count(low: int, high: int | None, what: str, example: int) -> Check:
    """Check a whole number."""
    bounds = f"from {low} up" if high is None else f"from {low} to {high}"

    def check(place: str, value: Any) -> int:
        fits = isinstance(value, int) and not isinstance(value, bool)
        if not fits or value < low or (high is not None and value > high):
            raise ConfigError(place, value, f"{what} {bounds}, e.g. {example}")
        return int(value)

    return check


def flag(place: str, value: Any) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise ConfigError(place, value, "True or False")
    return value


def word(example: str) -> Check:
    """One text without blanks around it."""

    def check(place: str, value: Any) -> str:
        if not _is_word(value):
            raise ConfigError(place, value, f"a text of at most {_LONGEST_WORD} characters, e.g. {example!r}")
        return str(value.strip())

    return check


def _is_word(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value.strip()) <= _LONGEST_WORD and value.strip().isprintable()


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple) and 0 < len(value) <= _MOST_OBJECTS


def cloud(place: str, value: Any) -> str:
    """Return a cloud provider in lower case."""
    found: str = word("aws")(place, value)
    return found.lower()


def regions(place: str, value: Any) -> str | list[str]:
    """Return a region, or a sorted list of allowed regions."""
    wanted = [value] if isinstance(value, str) else value
    if not _is_list(wanted) or not all(map(_is_word, wanted)):
        raise ConfigError(place, value, "a region or a list of regions, e.g. 'us-east'")
    found = sorted({each.strip().lower() for each in wanted})
    return found[0] if len(found) == 1 else found


def variables(place: str, value: Any) -> dict[str, str]:
    """Check environment variables: none reserved by modalflow or Modal."""
    found = environment.texts(place, value)
    for name in found:
        if not _VARIABLE.fullmatch(name) or name.startswith(RESERVED_VARIABLES):
            but = " or ".join(f"{prefix}…" for prefix in RESERVED_VARIABLES)
            raise ConfigError(f"a name in {place}", name, f"a variable's name, other than {but}, e.g. 'HF_HOME'")
    environment.check(place, found)
    return found


def object_name(what: str, example: str) -> Check:
    """Check the name of an object on Modal."""

    def check(place: str, value: Any) -> str:
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            raise ConfigError(place, value, f"the name of {what}: letters, digits, '.', '-' and '_', e.g. {example!r}")
        return value

    return check


def object_names(what: str, example: str) -> Check:
    """Names of named objects of Modal's, each once, in the order of the alphabet."""
    each = object_name(what, example)

    def check(place: str, value: Any) -> list[str]:
        wanted = [value] if isinstance(value, str) else value
        if not _is_list(wanted):
            raise ConfigError(place, value, f"a list of names, at most {_MOST_OBJECTS}, e.g. [{example!r}]")
        return sorted({each(place, name) for name in wanted})

    return check


def volume_names(place: str, value: Any) -> dict[str, str]:
    """Return mounts of Volumes: path → name, each Volume once, sorted by path."""
    if not isinstance(value, Mapping) or not 0 < len(value) <= _MOST_OBJECTS:
        expected = f"a dict of mount paths and Volumes' names, at most {_MOST_OBJECTS}, e.g. {{'/models': 'models'}}"
        raise ConfigError(place, value, expected)
    check_name = object_name("a Volume", "models")
    found = {path: check_name(f"{place}[{path!r}]", name) for path, name in mounts.check_all(place, value).items()}
    if len(set(found.values())) < len(found):
        raise ConfigError(place, value, "each Volume at one path only: Modal does not mount it twice")
    return found


def modules(place: str, value: Any) -> list[str]:
    """Return names of Python modules in the order of their imports."""
    fits = isinstance(value, list | tuple) and all(isinstance(name, str) and _MODULE.fullmatch(name) for name in value)
    if not fits:
        raise ConfigError(place, value, "a list of modules' names, e.g. ['pandas', 'torch']")
    return list(dict.fromkeys(value))
