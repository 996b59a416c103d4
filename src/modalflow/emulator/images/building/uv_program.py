"""The program uv for images that copy it from its registry: this machine's, or the one from the package index.

Owns the search, and the folder with a fetched program.
"""

from __future__ import annotations

import posixpath
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from modalflow.emulator.images import pip, python_envs
from modalflow.emulator.images.building.layered_tree import LayeredTree
from modalflow.emulator.images.building.logged_program import Programs, run
from modalflow.emulator.processes.container_spec import ContainerSpec
from modalflow.emulator.state.state_dir import StateDir

_NAME = "uv"


class Uv:
    """The program of one control plane."""

    def __init__(self, state: StateDir, programs: Programs) -> None:
        self._folder, self._hidden, self._programs = state.root / "uv", state.root, programs

    async def program(self, log: Callable[[str], None]) -> Path:
        """Return the host's path of uv; InstallError if there is none and none can be fetched."""
        on_path = shutil.which(_NAME)
        fetched = self._folder / "packages" / "bin" / _NAME
        if on_path is not None:
            return Path(on_path).resolve()
        if not fetched.is_file():
            log("   fetching uv from the package index: it is not on this machine's PATH\n")
            await self._fetch()
        return fetched

    async def _fetch(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        temporary, cache = self._folder / "tmp", self._folder / "cache"
        for made in (temporary, cache):
            made.mkdir(parents=True)
        target = self._folder / "packages"
        root = pip.outside_root(
            "/", tree=None, draft=self._folder, temporary=temporary, cache=cache, hidden=self._hidden
        )
        program = (sys.executable, *python_envs.pip_arguments(), "install", f"--target={target}")
        variables = {**pip.host_variables(), "TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        spec = ContainerSpec(root, variables, program=(*program, "--only-binary=:all:", _NAME))
        ended = await run(self._programs, spec, lambda _: None)
        if ended.code:
            raise pip.InstallError(
                "uv is not on this machine's PATH, and cannot be fetched from the package index; install it, "
                f"e.g. with pip install uv:\n{''.join(ended.last)}"
            )


def provide(tree: LayeredTree, path: str, program: Path) -> None:
    """Copy the program to a path of the image, or into a folder if the path ends with a slash."""
    target = tree.place(posixpath.join(path, _NAME) if path.endswith("/") else path)
    shutil.copyfile(program, target)
    target.chmod(0o755)
