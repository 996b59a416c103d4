"""The records of resources from the logs Volume, and Modal's rates, from Modal if it reports them.

Only reads. Its cost grows with the days of the request and the containers of each day, not with the tasks: a container
has one file a day, or a few if it was busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import modal
from modal import exception

from modalflow.budgets.live_rates import live_rates
from modalflow.cost.rates import Rates
from modalflow.cost.usage import Record
from modalflow.errors import MalformedMessageError
from modalflow.names import USAGE_FOLDER
from modalflow.operations.site import PATIENCE, Site, not_deployed, within

#: Files to read in parallel.
_READERS = 16

_MISSING = (exception.NotFoundError, FileNotFoundError)


@dataclass
class Usage:
    """The records found."""

    records: list[Record] = field(default_factory=list)
    unreadable: int = 0
    """Lines without a valid record: from another program, or from a container killed during the write."""


def read_usage(site: Site, since: datetime) -> Usage:
    """Return the records of work that ended since then. Raises NotDeployedError without a worker app, or the SDK's
    error."""
    volume: Any = modal.Volume.from_name(site.names.logs, **site.scope)
    usage = Usage()
    with ThreadPoolExecutor(_READERS, thread_name_prefix="modalflow-usage") as pool:
        for text in pool.map(lambda path: _read(volume, path), _files(site, volume, since)):
            usage.records += [record for record in _parsed(text, usage) if record.ended_at >= since.timestamp()]
    return usage


def _files(site: Site, volume: Any, since: datetime) -> Iterator[str]:
    try:
        days = within(PATIENCE, lambda: volume.listdir(USAGE_FOLDER))
    except _MISSING:
        _check_deployed(site, volume)
        return
    # One day earlier, for work from before midnight and for different clocks. The records have the exact times.
    first = since.astimezone(UTC).date() - timedelta(days=1)
    for day in sorted(str(entry.path).rpartition("/")[2] for entry in days):
        if (_day(day) or date.min) >= first:
            files = within(PATIENCE, lambda day=day: volume.listdir(f"{USAGE_FOLDER}/{day}"))  # type: ignore[misc]
            yield from sorted(str(entry.path) for entry in files if entry.type.name == "FILE")


def _check_deployed(site: Site, volume: Any) -> None:
    """Raise NotDeployedError if there is no worker app. A worker without records passes."""
    try:
        within(PATIENCE, volume.hydrate)
    except exception.NotFoundError as error:
        raise not_deployed(site, error) from error


def _day(name: str) -> date | None:
    try:
        return date.fromisoformat(name)
    except ValueError:
        return None


def _read(volume: Any, path: str) -> str:
    try:
        return within(PATIENCE, lambda: b"".join(volume.read_file(path))).decode("utf-8", "replace")
    except _MISSING:
        # Another process has just removed old records.
        return ""


def _parsed(text: str, usage: Usage) -> Iterator[Record]:
    for line in text.splitlines():
        try:
            yield Record.from_line(line)
        except MalformedMessageError:
            usage.unreadable += 1


def current_rates(site: Site) -> tuple[Rates, str]:
    """Return Modal's current rates. If they are unavailable, return the dated table and the reason."""
    return live_rates(site.control_plane.client)
