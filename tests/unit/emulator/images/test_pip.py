"""What pip need not be started for."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

import pytest

from modalflow.emulator.images.dockerfile.pip_commands import Install
from modalflow.emulator.images.pip import wanted

MODAL = metadata.version("modal")


@pytest.mark.parametrize(
    ("arguments", "constraints", "starts"),
    [
        ("modal", "", False),
        (f"modal=={MODAL} --no-deps", "", False),
        (f"modal=={MODAL}", f"modal=={MODAL}\nnot-installed-here==1.0\n# more\n", False),
        ("modal==0.1", "", True),
        ("modal", "modal==0.1", True),
        ("modal", "modal>=0.1", True),
        ("modal", "pytest==0.1", True),
    ],
)
def test_what_the_host_has_already(tmp_path: Path, arguments: str, constraints: str, starts: bool) -> None:
    """Exact versions of this machine install nothing; constraints that it contradicts do, whatever they concern."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/c.txt").write_text(constraints)
    install = Install((*arguments.split(), "--constraint", "/etc/c.txt"))
    found = wanted(install, lambda path: tmp_path / path.lstrip("/"))
    assert (found is None or found.satisfied() is None) == starts
