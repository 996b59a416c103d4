"""What a profile preloads is imported, and what cannot be is told and no more."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest

from modalflow.worker.zygote.warmup import import_preload


def test_every_module_of_the_list_is_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is listed is there for every fork."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    assert import_preload('["colorsys", "json.tool"]') == ["colorsys", "json.tool"]
    assert "colorsys" in sys.modules


@pytest.mark.parametrize("body", ["raise RuntimeError('no licence')", "import sys; sys.exit('no licence')", "(", ""])
def test_a_module_that_cannot_be_imported_is_told_and_the_others_are_there(
    body: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever a module does when it is imported, the container goes on."""
    if body:
        (tmp_path / "breaks.py").write_text(body)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert import_preload('["breaks", "colorsys"]') == ["colorsys"]
    assert "preload breaks cannot be imported" in caplog.text


@pytest.mark.parametrize("listed", ["colorsys", '"colorsys"', "[1]", '[""]', "{}"])
def test_what_is_no_list_of_modules_is_told(listed: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is guessed of text that somebody else wrote."""
    with caplog.at_level(logging.ERROR):
        assert import_preload(listed) == []
    assert "expected a JSON list of modules" in caplog.text


def test_without_a_list_nothing_happens(caplog: pytest.LogCaptureFixture) -> None:
    """Most profiles preload nothing."""
    assert import_preload("") == []
    assert not caplog.records
