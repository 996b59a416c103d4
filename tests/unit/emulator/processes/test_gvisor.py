"""gVisor's program: found, asked for its options, or named as missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.emulator.processes.sandboxes.gvisor import GVisor


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
