"""Images over another root file system: commands and containers see it, and nothing of this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import modal
import pytest

from modalflow.emulator.local import LocalModal
from modalflow.emulator.options import BASE_VARIABLE
from modalflow.emulator.processes.container_spec import Isolation
from tests.contract.deploying import load
from tests.contract.isolated import problem_with
from tests.contract.test_images import built, log_of
from tests.sdk import client_of

#: A root file system with a Python, or `oci:PATH`. `make test-gvisor BARE=1` makes one: too long for each run.
BASE = os.environ.get(BASE_VARIABLE, "")

pytestmark = [
    pytest.mark.local_only,
    pytest.mark.skipif(not BASE, reason=f"{BASE_VARIABLE} names no root file system: `make test-gvisor BARE=1` does"),
    pytest.mark.skipif(bool(problem := problem_with(Isolation.ROOT)), reason=f"no isolation by root here: {problem}"),
]


@pytest.fixture(scope="module")
def over_base() -> Iterator[modal.Client]:
    """A client of a control plane whose images are over the base."""
    with LocalModal(as_default=False, base=BASE) as local, client_of(local.url, local.env) as connected:
        yield connected


def test_an_image_over_a_base(over_base: modal.Client, tmp_path: Path) -> None:
    """Commands and functions run in the base, with its Python and Modal's SDK, and see no file of this machine."""
    (tmp_path / "file").touch()
    image = (
        modal.Image.from_registry("example.com/some:image")
        .run_commands("touch /made && python --version && pip --version")
        .env({"A": "1"})
    )
    app = modal.App()
    run = app.function(image=image, name="run")(load("image_app").run)
    read = app.function(image=image, name="variables")(load("image_app").variables)
    with app.run(client=over_base):
        assert run.remote(f"ls /made; ls {tmp_path}/file 2>&1; true").splitlines()[0] == "/made"
        # The second one is shown to installers.
        for own in filter(None, (tmp_path / "file", os.environ.get("PIP_CACHE_DIR"))):
            assert "No such file" in run.remote(f"ls -d {own} 2>&1; true")
        assert read.remote()["A"] == "1"
    assert not Path("/made").exists()
    base = Path(BASE)
    assert not (base / "made").exists()
    with built(modal.Image.from_registry("example.com/some:image"), over_base) as made:
        assert "the files of --base are below the image" in log_of(made)
