"""Modal's SDK and what it requires, in a folder for a Python that does not find this machine's packages.

Owns these folders, one for each minor version: on Modal, too, they are no part of an image. This process's own version
needs no network. For others pip fetches packages, without running anything of them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

from modalflow.emulator.images import pip, python_envs
from modalflow.emulator.images.building.interpreters import HERE
from modalflow.emulator.images.building.logged_program import Programs, run
from modalflow.emulator.processes.container_spec import ContainerSpec
from modalflow.emulator.state.state_dir import StateDir

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_SDK = "modal"


class ClientPackages:
    """The folders of one control plane."""

    def __init__(self, state: StateDir, programs: Programs) -> None:
        self._root, self._hidden = state.root / "clients", state.root
        self._programs = programs
        self._turn = asyncio.Lock()

    def folder(self, series: str) -> Path:
        """Return the folder for a version, which ``make`` fills."""
        return self._root / series

    def made(self) -> tuple[Path, ...]:
        """Return the filled folders."""
        return tuple(path for path in self._root.glob("3.*") if path.is_dir())

    async def make(self, series: str, log: Callable[[str], None]) -> Path:
        """Return the filled folder for a version; InstallError if packages are not available."""
        folder = self.folder(series)
        async with self._turn:
            if not folder.is_dir():
                draft = self._root / f"draft-{series}"
                shutil.rmtree(draft, ignore_errors=True)
                draft.mkdir(parents=True)
                try:
                    if series == HERE:
                        await asyncio.to_thread(_copy_own, draft)
                    else:
                        await self._fetch(series, draft, log)
                    await asyncio.to_thread(_add_pip, draft)
                    draft.rename(folder)
                except BaseException:
                    shutil.rmtree(draft, ignore_errors=True)
                    raise
        return folder

    async def _fetch(self, series: str, draft: Path, log: Callable[[str], None]) -> None:
        target = draft / "packages"
        program = (sys.executable, *python_envs.pip_arguments(), "install", f"--target={target}")
        program += (f"--python-version={series}", "--only-binary=:all:", f"{_SDK}=={metadata.version(_SDK)}")
        temporary, cache = draft / "tmp", draft / "cache"
        for made in (temporary, cache):
            made.mkdir()
        root = pip.outside_root("/", tree=None, draft=draft, temporary=temporary, cache=cache, hidden=self._hidden)
        log(f"   fetching Modal's SDK for Python {series}\n")
        variables = {**pip.host_variables(), "TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        ended = await run(self._programs, ContainerSpec(root, variables, program=program), lambda _: None)
        if ended.code:
            raise pip.InstallError(
                f"Modal's SDK for Python {series} cannot be fetched, so no container can run in this image:\n"
                + "".join(ended.last)
            )
        for path in target.iterdir():
            path.rename(draft / path.name)
        for made in (target, temporary, cache):
            shutil.rmtree(made)


def _copy_own(folder: Path) -> None:
    for distribution in _required(_SDK):
        for file in distribution.files or ():
            source = Path(str(distribution.locate_file(file)))
            if ".." in file.parts or not source.is_file():
                continue
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)


def _required(name: str) -> Iterator[metadata.Distribution]:
    """Yield a distribution and those that it requires, without extras."""
    wanted, seen = [name], set()
    while wanted:
        match = _NAME.match(wanted.pop())
        key = "" if match is None else re.sub(r"[-_.]+", "-", match[0]).lower()
        if not key or key in seen:
            continue
        seen.add(key)
        try:
            found = metadata.distribution(key)
        except metadata.PackageNotFoundError:
            continue
        yield found
        wanted += [each for each in found.requires or () if "extra ==" not in each]


def _add_pip(folder: Path) -> None:
    """Add pip, because an image's Python may come without it."""
    if (folder / "pip").is_dir():
        return
    if wheel := python_envs.bundled_pip():
        zipfile.ZipFile(wheel).extractall(folder)
        return
    for file in (metadata.files("pip") or ()) if importlib.util.find_spec("pip") is not None else ():
        source = Path(str(file.locate()))
        if ".." not in file.parts and source.is_file():
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
