"""An ``airflow.cfg`` with given settings. Does no I/O, and must not import Airflow.

Airflow reads the file with Python's configparser, which cannot express every text: it drops leading spaces and empty
lines, for example. Such a setting becomes an environment variable instead. The host's variables stay variables.
"""

from __future__ import annotations

import configparser
import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from modalflow.airflow_home.snapshot import Settings
from modalflow.names import HOME_VARIABLES, airflow_variable

#: Names and values that need no trial, which takes a tenth of a millisecond.
_NAME = re.compile(r"[a-z0-9_.-]+")
_PLAIN = re.compile(r"[!-~]([ -~]*[!-~])?")


@dataclass(frozen=True)
class ConfigFile:
    """The text of a file, and variables for all settings beyond its syntax."""

    text: str = field(repr=False)
    variables: Mapping[str, str] = field(repr=False)


def config_file(*settings: Settings) -> ConfigFile:
    """Return a file with all settings; the later ones override the earlier ones."""
    together: dict[str, dict[str, str]] = {}
    for each in settings:
        for section, options in each.items():
            together.setdefault(section, {}).update(options)
    texts, variables = [], together.pop(HOME_VARIABLES, {})
    for section, options in together.items():
        expressed = {option: value for option, value in options.items() if _is_expressible(section, option, value)}
        if expressed:
            texts.append(_written(section, expressed))
        variables.update(
            {
                airflow_variable(section.replace(".", "_"), option): value
                for option, value in options.items()
                if option not in expressed
            }
        )
    return ConfigFile("\n".join(texts), variables)


def _is_expressible(section: str, option: str, value: str) -> bool:
    if section == configparser.DEFAULTSECT or option != option.lower():
        return False
    if _NAME.fullmatch(section) and _NAME.fullmatch(option) and _PLAIN.fullmatch(value):
        return True
    parser = configparser.ConfigParser()
    try:
        # As a file is read: with other line ends, and in UTF-8.
        content = _written(section, {option: value}).encode()
        parser.read_file(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))
        return dict(parser.items(section)) == {option: value} and parser.sections() == [section]
    except (configparser.Error, ValueError):
        return False


def _written(section: str, options: Mapping[str, str]) -> str:
    lines: Iterable[str] = (f"{option} = {_escaped(value)}\n" for option, value in options.items())
    return f"[{section}]\n" + "".join(lines)


def _escaped(value: str) -> str:
    return value.replace("%", "%%").replace("\n", "\n\t")
