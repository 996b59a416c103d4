"""Which zygote of a container keeps processes for the next request."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import create_autospec

import pytest

from modalflow.worker.airflow_home.airflow_homes import AirflowHomes
from modalflow.worker.zygote import zygotes
from modalflow.worker.zygote.client import ZygoteClient
from modalflow.worker.zygote.prestart import Prestart
from modalflow.worker.zygote.protocol import ImportReport
from modalflow.worker.zygote.zygotes import Zygotes


def client(env: dict[str, str], *, airflow: bool) -> ZygoteClient:
    """Stand in for a zygote, whose import of Airflow takes seconds."""
    made = create_autospec(ZygoteClient, instance=True, env=env, is_busy=False)
    made.imported.return_value = ImportReport()
    return made  # type: ignore[no-any-return]  # A mock of that class.


async def test_only_the_last_used_zygote_keeps_a_process_for_the_next_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One whose settings no workload has any more would keep as much memory as a task."""
    monkeypatch.setattr(zygotes, "ZygoteClient", client)
    started = Prestart(str(tmp_path), create_autospec(AirflowHomes, instance=True), {}, {}, None)
    made = Zygotes({}, started)
    first = await made.zygote_for({"AIRFLOW__A__B": "1"})
    assert await made.zygote_for({"AIRFLOW__A__B": "1"}) is first
    first.rest.assert_not_called()  # type: ignore[attr-defined]  # A mock.
    second = await made.zygote_for({"AIRFLOW__A__B": "2"})
    first.rest.assert_awaited_once()  # type: ignore[attr-defined]  # A mock.
    second.rest.assert_not_called()  # type: ignore[attr-defined]  # A mock.
