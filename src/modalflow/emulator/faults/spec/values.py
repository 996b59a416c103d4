"""The values in a fault's specification: durations, delays that vary, rates, probabilities.

Owns their notation, parsing and random draws. It knows no fault.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"(?:\d+(?:\.\d+)?|\.\d+)"
_DURATION = re.compile(rf"([+-]?)({_NUMBER})({'|'.join(_UNITS)})")
_RATE = re.compile(rf"({_NUMBER})/(s|m|h)")
_CALL = re.compile(r"([a-z]+)\((.*)\)")


@dataclass(frozen=True)
class Delay:
    """A distribution of seconds, drawn for each use."""

    shape: str
    numbers: tuple[float, ...]

    def draw(self, random: Random) -> float:
        """Return seconds, never below 0."""
        return max(0.0, _SHAPES[self.shape].draw(random, *self.numbers))


@dataclass(frozen=True)
class _Shape:
    arguments: tuple[str, ...]
    draw: Callable[..., float]


_SHAPES: dict[str, _Shape] = {
    "fixed": _Shape(("DURATION",), lambda random, seconds: seconds),
    "uniform": _Shape(("FROM", "TO"), lambda random, low, high: random.uniform(low, high)),
    "normal": _Shape(("MEAN", "DEVIATION"), lambda random, mean, deviation: random.gauss(mean, deviation)),
    "exponential": _Shape(("MEAN",), lambda random, mean: random.expovariate(1.0 / mean) if mean else 0.0),
    # Sigma is of the logarithm: 0.5 puts one delay in twenty above 2.3 times the median.
    "lognormal": _Shape(("MEDIAN", "SIGMA"), lambda random, median, sigma: _lognormal(random, median, sigma)),
}


def _lognormal(random: Random, median: float, sigma: float) -> float:
    return median * math.exp(random.gauss(0.0, sigma))


def duration(text: str) -> float:
    """Read ``80ms``, ``2s``, ``1.5h``; ValueError for anything else, a negative one included."""
    seconds = signed_duration(text)
    if seconds < 0 or text.startswith("-"):
        raise ValueError(text)
    return seconds


def signed_duration(text: str) -> float:
    """Read a duration that may have a sign: ``-30s``."""
    found = _DURATION.fullmatch(text)
    if found is None:
        raise ValueError(text)
    sign, number, unit = found.groups()
    return (-1.0 if sign == "-" else 1.0) * float(number) * _UNITS[unit]


def delay(text: str) -> Delay:
    """Read a duration or a distribution of durations, such as ``80ms±20ms`` or ``exponential(80ms)``."""
    middle, spread, rest = text.replace("+-", "±").partition("±")
    if spread:
        around, by = duration(middle.strip()), duration(rest.strip())
        return Delay("uniform", (max(0.0, around - by), around + by))
    called = _CALL.fullmatch(text)
    if called is None:
        return Delay("fixed", (duration(text),))
    name, given = called[1], [part.strip() for part in called[2].split(",")]
    if name not in _SHAPES or len(given) != len(_SHAPES[name].arguments):
        raise ValueError(text)
    readers = [plain_number if word == "SIGMA" else duration for word in _SHAPES[name].arguments]
    return Delay(name, tuple(read(part) for read, part in zip(readers, given, strict=True)))


def plain_number(text: str) -> float:
    """Read a number of 0 or more."""
    if re.fullmatch(_NUMBER, text) is None:
        raise ValueError(text)
    return float(text)


def rate(text: str) -> float:
    """Read ``200/s`` or ``30/m``; return it per second."""
    found = _RATE.fullmatch(text)
    if found is None or not float(found[1]):
        raise ValueError(text)
    return float(found[1]) / _UNITS[found[2]]


def probability(text: str) -> float:
    """Read a number from 0 to 1."""
    value = plain_number(text)
    if value > 1:
        raise ValueError(text)
    return value


def whole(text: str) -> int:
    """Read a whole number of 0 or more."""
    if not text.isdecimal():
        raise ValueError(text)
    return int(text)


def positive(text: str) -> int:
    """Read a whole number of 1 or more."""
    value = whole(text)
    if value < 1:
        raise ValueError(text)
    return value


def one_of(*words: str) -> Callable[[str], str]:
    """Return a function that reads one of these words."""

    def read(text: str) -> str:
        if text not in words:
            raise ValueError(text)
        return text

    return read


@dataclass(frozen=True)
class Value:
    """A notation: its word in tables, a description for errors, an example and its parser."""

    word: str
    expected: str
    example: str
    read: Callable[[str], Any]


DURATION = Value("DURATION", "a duration with its unit (us, ms, s, m, h, d)", "2s", duration)
SIGNED_DURATION = Value("[-]DURATION", "a duration with its unit, negative for the past", "-30s", signed_duration)
DELAY = Value(
    "DELAY",
    "a duration, or 80ms±20ms (also 80ms+-20ms), uniform(60ms,100ms), normal(80ms,20ms), exponential(80ms), "
    "lognormal(80ms,0.5)",
    "80ms±20ms",
    delay,
)
RATE = Value("RATE", "a number per s, m or h", "200/s", rate)
PROBABILITY = Value("P", "a probability from 0 to 1", "0.1", probability)
WHOLE = Value("N", "a whole number of 0 or more", "3", whole)
POSITIVE = Value("N", "a whole number of 1 or more", "3", positive)


def choice(*words: str) -> Value:
    """Return the notation of a value that is one of these words."""
    return Value("|".join(words), "one of " + ", ".join(words), words[0], one_of(*words))
