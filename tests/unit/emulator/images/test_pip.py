"""Which pip is started, and what none need be started for."""

from __future__ import annotations

import importlib.util
import sysconfig
from importlib import metadata
from pathlib import Path

import pytest

from modalflow.emulator.images import python_envs
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


def test_the_pip_of_a_distribution_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian and Fedora have Python's wheels in a folder of their own, and no environment of theirs need have pip."""
    wheel = tmp_path / "pip-25.1-py3-none-any.whl"
    wheel.touch()
    monkeypatch.setattr(sysconfig, "get_config_var", {"WHEEL_PKG_DIR": str(tmp_path)}.get)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert python_envs.pip_arguments() == [f"{wheel}/pip"]
    wheel.unlink()
    assert python_envs.pip_arguments() == []
