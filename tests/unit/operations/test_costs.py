"""Which files are read, and whose rates count; Modal's objects are stand-ins that answer as the SDK does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import modal
import pytest
from modal import exception

from modalflow.config.settings import Settings
from modalflow.config.source import Variables
from modalflow.control_plane import ControlPlane
from modalflow.cost.usage import Record
from modalflow.errors import NotDeployedError
from modalflow.names import USAGE_FOLDER
from modalflow.operations.costs import current_rates, read_usage
from modalflow.operations.site import Site


@pytest.fixture
def site() -> Site:
    return Site(Settings.read(Variables({})), ControlPlane(None, None))  # type: ignore[arg-type]  # Nobody calls it.


class Volume:
    """Files in memory, and what was asked of them."""

    def __init__(self, files: dict[str, str] | None) -> None:
        self.files = files
        self.listed: list[str] = []

    def hydrate(self) -> None:
        if self.files is None:
            raise exception.NotFoundError("no such Volume")

    def listdir(self, folder: str) -> list[Any]:
        self.listed.append(folder)
        inside = [path for path in self.files or () if path.startswith(f"{folder}/")]
        if not inside:
            raise exception.NotFoundError("no such folder")
        parts = {
            (path.removeprefix(f"{folder}/").split("/")[0], path.count("/") > folder.count("/") + 1) for path in inside
        }
        return [
            SimpleNamespace(path=f"{folder}/{name}", type=SimpleNamespace(name="DIRECTORY" if deeper else "FILE"))
            for name, deeper in parts
        ]

    def read_file(self, path: str) -> Iterator[bytes]:
        assert self.files is not None
        if path.endswith("gone.jsonl"):
            raise FileNotFoundError(path)
        yield self.files[path].encode()


def with_volume(monkeypatch: pytest.MonkeyPatch, files: dict[str, str] | None) -> Volume:
    volume = Volume(files)
    monkeypatch.setattr(modal.Volume, "from_name", lambda *args, **kwargs: volume)
    return volume


def line(call: str, day: int) -> str:
    return Record(call, "ta-1", datetime(2026, 11, day, 12, tzinfo=UTC).timestamp(), running=1.0).to_line()


def test_only_the_days_that_are_asked_about_are_read(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the one before, for what ended about midnight; what a record says of its time decides."""
    files = {f"{USAGE_FOLDER}/2026-11-{day:02}/ta-1-0001.jsonl": line(f"fc-{day}", day) for day in (1, 8, 9, 10, 11)}
    files[f"{USAGE_FOLDER}/2026-11-11/gone.jsonl"] = ""
    files[f"{USAGE_FOLDER}/no day/ta-1-0001.jsonl"] = line("fc-0", 11)
    volume = with_volume(monkeypatch, files)
    usage = read_usage(site, datetime(2026, 11, 10, tzinfo=UTC))
    assert sorted(record.function_call_id for record in usage.records) == ["fc-10", "fc-11"]
    assert volume.listed == [USAGE_FOLDER, *(f"{USAGE_FOLDER}/2026-11-{day:02}" for day in (9, 10, 11))]


def test_lines_that_are_no_records_are_counted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that was killed while it wrote, or a task that wrote there itself, hides nothing else."""
    text = line("fc-1", 11) + "rubbish\n" + line("fc-2", 11) + line("fc-3", 11)[:20]
    with_volume(monkeypatch, {f"{USAGE_FOLDER}/2026-11-11/ta-1-0001.jsonl": text})
    usage = read_usage(site, datetime(2026, 11, 11, tzinfo=UTC))
    assert (len(usage.records), usage.unreadable) == (2, 2)


def test_no_records_yet_and_no_worker_are_told_apart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one is an answer, the other an error that names the command."""
    with_volume(monkeypatch, {})
    assert read_usage(site, datetime(2026, 11, 11, tzinfo=UTC)).records == []
    with_volume(monkeypatch, None)
    with pytest.raises(NotDeployedError, match="modalflow deploy"):
        read_usage(site, datetime(2026, 11, 11, tzinfo=UTC))


def with_rates(monkeypatch: pytest.MonkeyPatch, rates: Any) -> None:
    workspace = SimpleNamespace(billing=SimpleNamespace(rates=rates) if rates else SimpleNamespace())
    monkeypatch.setattr(modal, "Workspace", SimpleNamespace(from_context=lambda client: workspace), raising=False)


def test_modals_own_rates_count_where_it_tells_them(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the day on which it did."""
    with_rates(monkeypatch, lambda: {"cpu_hour_cost": Decimal("0.05"), "mem_gib_hour_cost": Decimal("0.01")})
    rates, why_dated = current_rates(site)
    assert rates.live and rates.hourly["cpu_hour_cost"] == Decimal("0.05") and not why_dated
    assert rates.source == f"Modal's rates of {datetime.now(UTC):%Y-%m-%d}"


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (exception.PermissionDeniedError("not for you"), "not for you"),
        (NotImplementedError("not here"), "not here"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("no cpu_hour_cost"), "no cpu_hour_cost"),
        (None, "1.5.4 and newer can"),
    ],
)
def test_the_table_stands_in_with_the_reason(
    site: Site, monkeypatch: pytest.MonkeyPatch, failure: Exception | None, why: str
) -> None:
    """Credentials that may not ask, a control plane or an SDK that cannot: a cost is told all the same."""

    def refuse() -> None:
        assert failure is not None
        raise failure

    with_rates(monkeypatch, refuse if failure else None)
    rates, why_dated = current_rates(site)
    assert not rates.live and rates.hourly and why in why_dated
