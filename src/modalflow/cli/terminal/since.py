"""The options for the ended work of a command: its time and its DAG."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}

dag_option = click.option("--dag", default="", help="Only this DAG.")


def since_option(default: str) -> Callable[[_F], _F]:
    """Return the option `--since` of a command with this default."""
    return click.option(
        "--since",
        metavar="WHEN",
        callback=moment,
        default=default,
        help=f"Earliest end of the work: 24h, 7d, or 2026-11-01 (UTC). Default: {default}.",
    )


def moment(context: click.Context, parameter: click.Parameter, value: str) -> datetime:
    """Read ``90m``, ``24h``, ``7d`` ago, or an ISO date or time (UTC by default)."""
    if (ago := re.fullmatch(r"(\d{1,5})([mhdw])", value.strip())) is not None:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        moment = datetime.fromisoformat(value.strip())
    except ValueError:
        raise click.BadParameter(f"{value!r} is not a time; expected for example 24h, 7d or 2026-11-01") from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
