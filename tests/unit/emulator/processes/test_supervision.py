"""The life of a sandbox of gVisor with a memory snapshot."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes.container_spec import Snapshot
from modalflow.emulator.processes.sandboxes.supervision import FAILED, FINISHED, IN_PROGRESS, Start, Supervision


@pytest.mark.parametrize("part", [IN_PROGRESS, FINISHED])
def test_a_snapshot_that_failed_takes_no_room(tmp_path: Path, part: str, capfd: pytest.CaptureFixture[str]) -> None:
    """Only its mark stays: it is hundreds of MiB, and no container is restored from it."""
    (tmp_path / part).mkdir()
    (tmp_path / part / "pages.img").write_bytes(b"pages")
    starts: list[Start] = []

    def runsc(start: Start, *_command: str, log: Path | None = None) -> int:
        starts.append(start)
        return 1

    snapshot = Snapshot(tmp_path, "all", exists=True)
    Supervision(runsc, "ta-1", tmp_path, tmp_path, snapshot)._without("no space")
    assert [path.name for path in tmp_path.iterdir()] == [FAILED]
    assert starts == [Start.PLAIN]
    assert "no space; this container starts without one" in capfd.readouterr().err
