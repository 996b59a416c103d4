"""Tests in gVisor: their lists name tests that exist, and no lack of `runsc` passes unnoticed."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.gvisor.different import INSIDE, WITH_CONTAINERS

ROOT = Path(__file__).parents[3]


def _is_there(test: str) -> bool:
    """Whether the file exists, and has a test of that name."""
    file, _, name = test.partition("::")
    path = ROOT / file
    return path.exists() and (not name or f"def {name.partition('[')[0]}(" in path.read_text())


@pytest.mark.parametrize("name", ["short.txt", "long.txt", "bare.txt"])
def test_the_lists_name_tests(name: str) -> None:
    """A renamed test does not drop out of a list."""
    listed = (ROOT / "tests" / "gvisor" / name).read_text().splitlines()
    assert [test for test in listed if not _is_there(test)] == []


def test_the_differences_name_tests() -> None:
    """A renamed test does not keep the excuse of the old one."""
    assert [test for test in (*WITH_CONTAINERS, *INSIDE) if not _is_there(test)] == []


SCRIPTS = [["install-runsc"], ["install-redis"], ["install-promtool"], ["bare-debian", "3.11"]]


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_machine_that_cannot_fetch_packages_is_told_apart(tmp_path: Path, script: list[str]) -> None:
    """Without Debian's tools, the script ends with 3, which `make test-gvisor` accepts, and names what is missing."""
    name, *arguments = script
    done = subprocess.run(
        ["/bin/bash", ROOT / "scripts" / name, tmp_path / "tools", *arguments],
        env={"PATH": str(tmp_path), "LANG": "C"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (3, "")
    assert "this machine has no apt-get" in done.stderr


@pytest.mark.parametrize(("program", "code"), [("apt-get", 3), ("dpkg-deb", 1)])
def test_only_a_machine_without_a_mirror_may_go_without(tmp_path: Path, program: str, code: int) -> None:
    """If the list of packages cannot be read, the code is 3; if anything fails after that, it is 1."""
    commands = tmp_path / "bin"
    commands.mkdir()
    keys = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not keys.is_file():
        pytest.skip("needs Debian's keys")
    fails = {
        "apt-get": 'case "$*" in *indextargets*) echo http://mirror.test;; *) exit 100;; esac',
        "dpkg-deb": "exit 2",
    }
    works = {"apt-get": 'case "$*" in *indextargets*) echo http://mirror.test;; esac', "dpkg-deb": "exit 0"}
    for name in fails:
        file = commands / name
        file.write_text(f"#!/bin/bash\n{fails[name] if name == program else works[name]}\n")
        file.chmod(0o755)
    done = subprocess.run(
        ["/bin/bash", ROOT / "scripts" / "install-runsc", tmp_path / "tools"],
        env={"PATH": f"{commands}:{os.defpath}", "LANG": "C"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
