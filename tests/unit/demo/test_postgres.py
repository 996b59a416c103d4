"""The PostgreSQL of the demo."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from modalflow.demo.programs import postgres
from modalflow.demo.programs.postgres import Postgres


def test_programs_out_of_reach_are_copied_with_their_libraries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a checkout that only root can read, another user gets a copy, which needs nothing of the original."""
    monkeypatch.setattr(postgres, "unprivileged_user", lambda: (65534, 65534))
    monkeypatch.setattr(postgres, "open_to_others", lambda path: path == tmp_path)
    monkeypatch.setattr(postgres, "LONGEST_SOCKET_FOLDER", 4096)
    copy = Postgres(tmp_path / "postgres", tmp_path / "postgres.log", {})._reachable_binaries()
    assert copy.is_relative_to(tmp_path)
    for program in ("initdb", "postgres"):
        linked = subprocess.run(["ldd", str(copy / "bin" / program)], capture_output=True, text=True, check=True)
        assert "not found" not in linked.stdout
