"""The committed build of the views is that of the sources."""

from __future__ import annotations

import shutil
from pathlib import Path

from scripts import ui_sources


def test_the_build_is_of_the_sources() -> None:
    """And the lock file has a hash for every package, and no address."""
    assert ui_sources.problems() == []


def test_a_changed_source_is_noticed(tmp_path: Path) -> None:
    """Without node: any byte, and any new file."""
    folder = tmp_path / "frontend"
    shutil.copytree(ui_sources.FRONTEND, folder, ignore=shutil.ignore_patterns("node_modules"))
    before = ui_sources.digest(folder)
    assert before == ui_sources.digest()
    (folder / "src/more.ts").write_text("")
    added = ui_sources.digest(folder)
    (folder / "src/main.tsx").write_text("export {};")
    assert len({before, added, ui_sources.digest(folder)}) == 3
