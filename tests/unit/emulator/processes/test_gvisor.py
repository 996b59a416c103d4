"""gVisor's program: found, asked for its options, or named as missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes import mountinfo
from modalflow.emulator.processes.container_spec import VOLUMES, ContainerSpec, Rootfs
from modalflow.emulator.processes.mountinfo import Mounted
from modalflow.emulator.processes.sandboxes.gvisor import GVisor, shared


def _program(folder: Path, text: str) -> str:
    program = folder / "runsc"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    return str(program)


def test_a_missing_program_is_named_with_a_way_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without runsc on PATH, the error says so, and names the package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(OSError, match="`runsc` is not on PATH; install Debian's package `runsc`"):
        GVisor.find(None)


def test_another_program_is_refused(tmp_path: Path) -> None:
    """A program that lists no options of runsc is not started as one."""
    program = _program(tmp_path, "echo not me >&2")
    with pytest.raises(OSError, match=r"cannot be used as gVisor's `runsc` \(.*not me"):
        GVisor.find(program)


@pytest.mark.parametrize(
    ("known", "passed"), [("host-uds", "--host-uds=open"), ("fsgofer-host-uds", "--fsgofer-host-uds")]
)
def test_the_options_are_those_of_its_version(tmp_path: Path, known: str, passed: str) -> None:
    """An older version gets the older name of an option, and none that it lacks."""
    program = _program(tmp_path, f"printf '  -network value\\n  -{known} value\\n' >&2")
    assert GVisor.find(program).options == ("--network=host", passed)


def test_only_mounts_of_volumes_are_shared(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A Volume is shared wherever it is mounted; other files on its disk are not: gVisor fails with hundreds."""

    def mounted(point: str, part: str, device: str = "8:1") -> Mounted:
        return Mounted("1", device, part, point, "ext4", "/dev/sda1")

    ours = [
        mounted(f"{VOLUMES}/vo-1", "/state/vo-1"),
        mounted("/data/inner", "/state/vo-1/inner"),
        mounted(f"{VOLUMES}/vo-2", "/", "0:44"),
        mounted("/data", "/files", "0:44"),
    ]
    others = [mounted("/", "/"), mounted("/tmp/file", "/tmp/file"), mounted("/more", "/state/vo-10")]
    monkeypatch.setattr(mountinfo, "mounts", lambda: [*others, *ours])
    spec = ContainerSpec(Rootfs(tmp_path, tmp_path, hidden=tmp_path), {})
    assert set(shared(spec)) == {each.point for each in ours}
