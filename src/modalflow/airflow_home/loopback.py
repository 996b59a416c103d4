"""Settings of the Airflow host with a loopback address: in a container on Modal, this is the container itself."""

from __future__ import annotations

import re
from typing import Final

from modalflow.airflow_home.snapshot import Settings
from modalflow.names import HOME_VARIABLES

_LOOPBACK: Final = re.compile(r"(?:^|[/@\s\"'])(?:localhost|127(?:\.\d+){3}|\[?::1\]?)(?=$|[:/\s\"'])", re.IGNORECASE)

#: An address for browsers. No task connects to it.
_LINKS: Final = ("api", "base_url")


def loopback_settings(*settings: Settings) -> list[str]:
    """Return the labels of settings and variables with such an address in their value, sorted."""
    return sorted(
        label(section, option)
        for each in settings
        for section, options in each.items()
        for option, value in options.items()
        if (section, option) != _LINKS and _LOOPBACK.search(value)
    )


def label(section: str, option: str) -> str:
    """Return the name of a setting or a variable of an Airflow home in a text."""
    return f"the variable {option}" if section == HOME_VARIABLES else f"[{section}] {option}"
