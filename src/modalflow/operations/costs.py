"""The records of what work occupied, read from the logs Volume; and Modal's rates, from Modal where it tells them.

Reads, and changes nothing. What it costs grows with the days asked about and the containers of each, not with the
tasks: a container's records of a day are in a file, or a few if it was busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any

import modal
from modal import exception

from modalflow.cost.rates import DATED, Rates
from modalflow.cost.usage import Record
from modalflow.errors import MalformedMessageError
from modalflow.names import USAGE_FOLDER
from modalflow.operations.site import PATIENCE, Site, not_deployed, within
from modalflow.support.described import words_of

#: Files that are read side by side.
_READERS = 16

_MISSING = (exception.NotFoundError, FileNotFoundError)


@dataclass
class Usage:
    """What was found."""

    records: list[Record] = field(default_factory=list)
    unreadable: int = 0
    """Lines that are no records: somebody else wrote them, or a container was killed while it did."""


def read_usage(site: Site, since: datetime) -> Usage:
    """The records of what ended since then; NotDeployedError where there is no worker app, or what the SDK raises."""
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
    # A day earlier: what began before midnight, and clocks that differ, are told from the records.
    first = since.astimezone(UTC).date() - timedelta(days=1)
    for day in sorted(str(entry.path).rpartition("/")[2] for entry in days):
        if (_day(day) or date.min) >= first:
            files = within(PATIENCE, lambda day=day: volume.listdir(f"{USAGE_FOLDER}/{day}"))  # type: ignore[misc]
            yield from sorted(str(entry.path) for entry in files if entry.type.name == "FILE")


def _check_deployed(site: Site, volume: Any) -> None:
    """Tell a worker that has recorded nothing from one that is not there."""
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
        # Somebody has just removed old records.
        return ""


def _parsed(text: str, usage: Usage) -> Iterator[Record]:
    for line in text.splitlines():
        try:
            yield Record.from_line(line)
        except MalformedMessageError:
            usage.unreadable += 1


def current_rates(site: Site) -> tuple[Rates, str]:
    """Modal's rates as it tells them now; the dated table and why, where it does not."""
    try:
        workspace: Any = modal.Workspace.from_context(client=site.control_plane.client)
        answer = within(PATIENCE, lambda: dict(workspace.billing.rates()))
        return Rates.told(answer, f"Modal's rates of {datetime.now(UTC):%Y-%m-%d}"), ""
    except AttributeError:
        return DATED, f"modal {modal.__version__} cannot read them; 1.5.4 and newer can"
    except (exception.Error, NotImplementedError, TimeoutError, ValueError) as error:
        return DATED, f"Modal did not report its own: {words_of(error)}"
