"""When a fork will do for a container, and when it takes a new interpreter."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes.container_spec import ContainerSpec, Rootfs, VolumeView
from modalflow.emulator.processes.exec_runtime import Preloaded

ENVIRON = {"PATH": "/bin", "PYTHONUNBUFFERED": "1", "PYTHONPATH": "", "READ": "1", "HOME": "/root"}


def preloaded(*path: str) -> Preloaded:
    return Preloaded(frozenset({"modal", "grpclib"}), frozenset({"READ", "MISSED", "HOME"}), ENVIRON, path)


def start(folder: Path, variables: dict[str, str] | None = None, site: tuple[Path, ...] = ()) -> ContainerSpec:
    rootfs = Rootfs(folder, folder, hidden=folder)
    return ContainerSpec(rootfs, {**ENVIRON, "PYTHONPATH": str(folder), **(variables or {})}, site=site)


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({}, ""),
        ({"PATH": "/elsewhere", "HOME": "/home", "ANYTHING": "1"}, ""),
        ({"READ": "2"}, "READ"),
        ({"MISSED": "now there"}, "MISSED"),
        ({"PYTHONHASHSEED": "1"}, "PYTHONHASHSEED"),
        ({"PYTHONUNBUFFERED": ""}, "PYTHONUNBUFFERED"),
        ({"LD_PRELOAD": "lib.so"}, "LD_PRELOAD"),
    ],
)
def test_variables(tmp_path: Path, variables: dict[str, str], named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that was read at the template's start makes a difference; one that nobody read does not."""
    monkeypatch.chdir(tmp_path)
    assert named in preloaded().unfit(start(tmp_path, variables))
    assert bool(named) == bool(preloaded().unfit(start(tmp_path, variables)))


@pytest.mark.parametrize(
    ("file", "differs"),
    [
        ("main.py", False),
        ("grpclib.py", True),
        ("grpclib/__init__.py", True),
        ("modal.cpython-311-x86_64-linux-gnu.so", True),
        ("modal.txt", False),
        ("modal-1.0.dist-info/METADATA", False),
    ],
)
def test_modules(tmp_path: Path, file: str, differs: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of the app's or the image's that hides one of the template's makes a difference."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    folder = tmp_path / "packages"
    (folder / file).parent.mkdir(parents=True)
    (folder / file).touch()
    assert bool(preloaded().unfit(start(folder))) == differs
    assert bool(preloaded().unfit(start(tmp_path / "cwd", site=(folder,)))) == differs
    # What the template had on its own path is where it found its modules.
    assert not preloaded(str(folder)).unfit(start(folder))


def test_a_start_goes_through_a_file(tmp_path: Path) -> None:
    """What the control plane asks for is what the template reads."""
    volume = VolumeView("vo-1", tmp_path / "view", "/vol", "sub", read_only=True)
    rootfs = Rootfs(
        tmp_path, tmp_path / "layer", tmp_path / "state", (tmp_path / "shown",), volumes=(volume,), cwd="/app"
    )
    asked = ContainerSpec(
        rootfs, {"A": "b\udcff"}, Path("/venv/bin/python"), (Path("/venv/lib"),), {"RLIMIT_DATA": 1}, True
    )
    assert ContainerSpec.loads(asked.dumps()) == asked
