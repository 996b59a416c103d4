"""The life of a sandbox of gVisor with a memory snapshot."""

from __future__ import annotations

import os
import signal
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


@pytest.mark.parametrize("code", [0, 1])
def test_a_container_that_is_stopped_during_its_checkpoint_ends(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal is no part of the snapshot, which others are restored from: the container ends with its exit code."""
    (tmp_path / IN_PROGRESS).mkdir()
    commands: list[str] = []

    def runsc(start: Start, *command: str, log: Path | None = None) -> int:
        assert start is Start.BEFORE_CHECKPOINT
        commands.append(command[0])
        return len(commands)

    def ended(code: int) -> None:
        raise SystemExit(code)

    monkeypatch.setattr(os, "_exit", ended)
    supervision = Supervision(runsc, "ta-1", tmp_path, tmp_path, Snapshot(tmp_path, "all", exists=False))
    supervision._begin(Start.BEFORE_CHECKPOINT)
    supervision._take()
    supervision._pass_on(signal.SIGINT)
    supervision._on_end(2, code)
    with pytest.raises(SystemExit, match="130"):
        supervision._on_end(1, 0)
    assert (tmp_path / FINISHED).exists() is (code == 0)
    assert commands == ["run", "checkpoint", *(["kill"] if code else [])]
