"""The bytecode of an image's packages."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modalflow.worker.deploy.in_image.bytecode import compile_packages


def test_what_has_no_bytecode_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules of packages get bytecode, also beside compiled ones; data, other folders and broken files do not."""
    site = tmp_path / "prefix" / "lib" / "site-packages"
    written = ["one/__init__.py", "one/more/deep.py", "one/not-a-module.py", "one/tests/test_it.py", "app.py"]
    for name in (*written, "../../../elsewhere/own.py"):
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("A = 1\n")
    (site / "one" / "broken.py").write_text("print 1\n")
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(sys, "base_prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(sys, "path", [str(tmp_path / "elsewhere"), str(site)])
    compile_packages()

    def compiled() -> dict[str, int]:
        return {path.name.partition(".")[0]: path.stat().st_mtime_ns for path in tmp_path.rglob("*.pyc")}

    first = compiled()
    assert set(first) == {"__init__", "deep", "app"}
    (site / "late.py").write_text("B = 2\n")
    compile_packages()
    assert set(compiled()) == {*first, "late"}
    assert {name: at for name, at in compiled().items() if name in first} == first
