"""Images by other tools than pip: poetry, uv, another Python, micromamba. The tools come from the package index."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import modal
import pytest

from modalflow.emulator.images.building import interpreters
from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.isolated import problem_with
from tests.contract.test_images import built, function
from tests.support import in_gvisor, over_base
from tests.wheels import make_wheel

pytestmark = [
    pytest.mark.local_only,
    pytest.mark.skipif(not in_gvisor(), reason="`make test-gvisor` runs it, since it needs a package index"),
    pytest.mark.skipif(bool(problem := problem_with(Isolation.ROOT)), reason=f"no isolation by root here: {problem}"),
]

_WHEEL = "/wheels/tinypkg-1.0-py3-none-any.whl"
_FOUND = {"here": "1.0", "below": "1.0", "script": "tinypkg 1.0"}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> modal.Image:
    """An image with a wheel in it."""
    folder = tmp_path_factory.mktemp("wheels")
    make_wheel(folder, "tinypkg", "1.0")
    return modal.Image.debian_slim().add_local_dir(folder, "/wheels", copy=True)


def test_poetry_installs_a_project(client: modal.Client, base: modal.Image, tmp_path: Path) -> None:
    """poetry_install_from_file: containers have the packages of the project, and their programs."""
    (tmp_path / "pyproject.toml").write_text(
        "[tool.poetry]\n"
        'name = "project"\nversion = "1"\ndescription = ""\nauthors = []\n'
        "[tool.poetry.dependencies]\n"
        f'python = ">=3.9"\ntinypkg = {{path = "{_WHEEL}"}}\n'
    )
    app = modal.App()
    tell = function(app, base.poetry_install_from_file(str(tmp_path / "pyproject.toml"), ignore_lockfile=True))
    with app.run(client=client):
        assert tell.remote("tinypkg") == _FOUND


def test_uv_syncs_a_project(client: modal.Client, base: modal.Image, tmp_path: Path) -> None:
    """uv_sync: containers run the Python of the project's environment, with its packages."""
    (tmp_path / "pyproject.toml").write_text(
        "[project]\n"
        f'name = "project"\nversion = "1"\nrequires-python = ">=3.9"\ndependencies = ["tinypkg @ file://{_WHEEL}"]\n'
    )
    image = base.uv_sync(str(tmp_path))
    app = modal.App()
    tell, run = function(app, image), function(app, image, "run")
    with app.run(client=client):
        assert tell.remote("tinypkg") == _FOUND
        assert run.remote("command -v python").strip() == "/.uv/.venv/bin/python"


@pytest.mark.skipif(over_base(), reason="the root below has one Python")
def test_another_python(client: modal.Client) -> None:
    """python_version: containers run an interpreter of this machine with that version, and Modal's SDK in it."""
    others = (f"3.{minor}" for minor in range(10, 15) if minor != sys.version_info.minor)
    series = next((each for each in others if interpreters.on_host(each) is not None), None)
    if series is None:
        pytest.skip(f"this machine has no other Python than {interpreters.HERE}")
    app = modal.App()
    run = function(app, modal.Image.debian_slim(python_version=series).pip_install("cowsay==6.1"), "run")
    program = "import sys, cowsay, modal; print('%d.%d' % sys.version_info[:2])"
    with app.run(client=client):
        assert run.remote(f'python -c "{program}"').strip() == series


@pytest.mark.skipif(shutil.which("micromamba") is not None, reason="this machine has micromamba")
def test_micromamba_is_not_on_every_machine(client: modal.Client) -> None:
    """Without the program, which neither Debian nor the package index has, the build fails with the way out."""
    image = modal.Image.micromamba().micromamba_install("numpy", channels=["conda-forge"])
    expected = r"micromamba is not in the image: put it on this machine's PATH, or build over an archive"
    with pytest.raises(modal.exception.RemoteError, match=expected), built(image, client):
        pass
