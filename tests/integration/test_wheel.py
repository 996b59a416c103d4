"""The wheel, as a stranger gets it: installed outside the checkout, on its own dependencies."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from modalflow.support.installation import wheel_name
from tests.wheels import CHECKOUT, build_wheel, copy_sources, environment_with

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy of the sources."""
    return build_wheel(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel and what it asks for by itself, no extra."""
    return environment_with(wheel, tmp_path_factory.mktemp("stranger") / "venv")


def run(venv: Path, cwd: Path, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a program of the stranger's environment, where nothing of the checkout is in sight."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "MODAL", "AIRFLOW"))}
    command = [str(venv / "bin" / program), *arguments]
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, check=False, timeout=120)


def test_the_command_works(venv: Path, tmp_path: Path) -> None:
    """``modalflow --help`` names its subcommands, and each of them has a help of its own."""
    shown = run(venv, tmp_path, "modalflow", "--help")
    assert shown.returncode == 0, shown.stderr
    for command in ("demo", "deploy", "local"):
        assert command in shown.stdout
        helped = run(venv, tmp_path, "modalflow", command, "--help")
        assert helped.returncode == 0, helped.stderr


def test_the_local_control_plane_works(venv: Path, tmp_path: Path) -> None:
    """The real SDK reaches a control plane that the wheel alone started, without Airflow."""
    script = tmp_path / "hello.py"
    script.write_text(
        "import modal\n"
        "modal.Dict.from_name('greetings', create_if_missing=True)['hello'] = 'world'\n"
        "print(modal.Dict.from_name('greetings')['hello'])\n"
    )
    told = run(venv, tmp_path, "modalflow", "local", "run", "--", str(venv / "bin" / "python"), str(script))
    assert (told.returncode, told.stdout.strip()) == (0, "world"), told.stderr
    imported = run(venv, tmp_path, "python", "-c", "from modalflow.emulator import LocalModal; print(LocalModal())")
    assert "LocalModal" in imported.stdout, imported.stderr


def test_the_demo_says_what_it_lacks(wheel: Path, venv: Path, tmp_path: Path) -> None:
    """Without the extra, the demo names the wheel with it, and ends."""
    told = run(venv, tmp_path, "modalflow", "demo")
    assert told.returncode == 1
    assert f"pip install 'dist/{wheel.name}[demo]'" in told.stderr


def test_the_example_dags_are_in_it(venv: Path, tmp_path: Path) -> None:
    """An installed modalflow has the DAG that its demo runs."""
    found = run(venv, tmp_path, "python", "-c", "from modalflow.demo.dags import example_dags; print(example_dags())")
    folder = Path(found.stdout.strip())
    assert folder.is_relative_to(venv.resolve()), found.stderr
    assert (folder / "modalflow_demo.py").read_text() == (CHECKOUT / "examples/dags/modalflow_demo.py").read_text()


def test_it_is_typed(venv: Path, tmp_path: Path) -> None:
    """A type checker takes the types from the installed package."""
    (marker,) = venv.glob("lib/python*/site-packages/modalflow/py.typed")
    assert marker.exists()
    (tmp_path / "typed.py").write_text("from modalflow.emulator import LocalModal\n\nreveal_type(LocalModal().url)\n")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", venv / "bin" / "python", "typed.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert 'Revealed type is "str"' in checked.stdout.replace("builtins.str", "str"), checked.stdout + checked.stderr
    assert checked.returncode == 0, checked.stdout


def test_make_wheel_leaves_one_wheel_of_this_version(tmp_path: Path) -> None:
    """Its name is what errors and docs/install.md tell a user to install; an older wheel is gone."""
    copy_sources(tmp_path)
    shutil.copy(CHECKOUT / "Makefile", tmp_path)
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / "modalflow-0.4.0-py3-none-any.whl").touch()
    # With the tools of this environment, which is set up.
    command = ["make", "wheel", f"BIN={Path(sys.executable).parent}", "--old-file=.venv/.setup-done"]
    made = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert [path.name for path in (tmp_path / "dist").iterdir()] == [wheel_name()]


def test_nothing_of_the_machine_is_in_it(wheel: Path) -> None:
    """The wheel holds the package and its licence: no tests, no folder of whoever built it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        contents = b"".join(archive.read(name) for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"modalflow"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert str(CHECKOUT).encode() not in contents
