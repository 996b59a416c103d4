"""The figures about a checkout, and the limits of the house in them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).parents[3]
PROGRAM = """
from __future__ import annotations
from typing import Any

class Widget:
    def name(self, other: Any) -> None:
        import json
        other.callback = lambda: None
"""


def figures(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    scripts = checkout / "scripts"
    scripts.mkdir(exist_ok=True)
    (scripts / "figures.py").write_bytes((CHECKOUT / "scripts" / "figures.py").read_bytes())
    command = [sys.executable, str(scripts / "figures.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def row(page: str, title: str) -> str:
    [line] = [line for line in page.splitlines() if line.startswith(title)]
    return line.split()[-1]


def package(checkout: Path) -> Path:
    folder = checkout / "src" / "modalflow" / "parts"
    folder.mkdir(parents=True)
    return folder


def test_what_is_counted(tmp_path: Path) -> None:
    """Assignments from outside, idle lambdas, late imports, repeated names and cycles are counted, once each."""
    folder = package(tmp_path)
    (folder / "one.py").write_text("from modalflow.parts import two\n" + PROGRAM)
    (folder / "two.py").write_text("from modalflow.parts.one import Widget as Other\n\nclass Widget: ...\n")
    page = figures(tmp_path).stdout
    assert row(page, "files  ") == "2"
    assert row(page, "attributes set from outside") == "1"
    assert row(page, "lambdas that do nothing") == "1"
    assert row(page, "imports inside functions") == "1"
    assert row(page, "class names used twice in a subsystem") == "1"
    assert row(page, "modules in import cycles") == "2"


def test_a_file_that_is_too_long_and_a_folder_that_is_too_full(tmp_path: Path) -> None:
    """What exceeds a limit is named, with its figure and the limit."""
    folder = package(tmp_path)
    for number in range(12):
        (folder / f"part{number}.py").write_text("")
    assert figures(tmp_path, "--check").returncode == 0
    (folder / "long.py").write_text("\n" * 401)
    done = figures(tmp_path, "--check")
    assert done.returncode == 1
    assert "src/modalflow/parts/long.py: 401 lines" in done.stderr
    assert "src/modalflow/parts: 13 files; the limits are 400 lines a file and 12 Python files" in done.stderr
