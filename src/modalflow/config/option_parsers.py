"""Parsers of the values of options: each is called with the place and the raw text, and raises ConfigError."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import TypeVar

from modalflow.config import variables
from modalflow.errors import ConfigError, Described

_N = TypeVar("_N", int, float)

_SWITCHES = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


def text(place: str, raw: str) -> str:
    return raw.strip()


def app_name(place: str, raw: str) -> str:
    """Check the name of a worker app."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,49}", raw.strip()):
        raise ConfigError(place, raw, "letters, digits, '.', '-' and '_', at most 50, e.g. modalflow-prod")
    return raw.strip()


def _number(kind: type[_N], what: str, low: _N, high: _N, example: str) -> Callable[[str, str], _N]:
    def parse(place: str, raw: str) -> _N:
        try:
            value: _N | None = kind(raw)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            raise ConfigError(place, raw, f"{what} from {low:g} to {high:g}, e.g. {example}")
        return value

    return parse


def whole(low: int, high: int, example: str) -> Callable[[str, str], int]:
    return _number(int, "a whole number", low, high, example)


def seconds(low: float, high: float, example: str) -> Callable[[str, str], float]:
    return _number(float, "seconds", low, high, example)


def one_of(*choices: str) -> Callable[[str, str], str]:
    def parse(place: str, raw: str) -> str:
        if raw.strip().lower() not in choices:
            raise ConfigError(place, raw, "one of " + ", ".join(choices))
        return raw.strip().lower()

    return parse


def switch(place: str, raw: str) -> bool:
    """Parse as Airflow parses its own switches."""
    text = raw.strip().lower()
    if text not in _SWITCHES:
        raise ConfigError(place, raw, "True or False")
    return _SWITCHES[text]


def variables_of(place: str, raw: str) -> Mapping[str, str]:
    try:
        value = json.loads(raw or "{}")
    except ValueError as error:
        # Not the text: it may hold secrets.
        expected = 'a JSON object of environment variables, e.g. {"TZ": "UTC"}'
        raise ConfigError(place, Described("not JSON"), expected) from error
    found = variables.texts(place, value)
    variables.check(place, found)
    return found


def queues(place: str, raw: str) -> Mapping[str, str]:
    try:
        value = json.loads(raw or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict) or not all(isinstance(v, str) and v for v in value.values()):
        raise ConfigError(place, raw, 'a JSON object of queues and profiles, e.g. {"gpu-queue": "gpu", "*": "default"}')
    return value
