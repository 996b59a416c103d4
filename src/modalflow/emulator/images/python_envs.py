"""Python environments in folders: an image's packages, in front of the host's.

Owns the format of such a folder: a virtual environment without pip, with the host's packages after its own.
Installation is in pip.py; the place and the lifetime of the folders are in image_layers.py.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shlex
import shutil
import sys
import sysconfig
import venv
from collections.abc import Iterable, Iterator
from pathlib import Path

#: The place of the environment in an image whose commands were run.
IN_IMAGE = Path("/usr/local/lib/image-python")

HOST_PATHS = "_host_packages.pth"
CLIENT_PATHS = "_modal_client.pth"
_BUNDLED_PIP = "_bundled_pip.pth"
_METADATA = re.compile(r"^(?P<name>.+?)-(?P<version>[^-]+)\.dist-info$")


def make(folder: Path) -> None:
    """Make an empty environment in a new folder."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(folder)
    host_settings = Path(sys.prefix, "pip.conf")
    if host_settings.is_file():
        shutil.copyfile(host_settings, folder / "pip.conf")
    connect(folder)


def make_in_image(there: Path) -> None:
    """Make an empty environment at ``there``, to be used at IN_IMAGE, with pip as a program and as a module."""
    make(there)
    relocate(there, str(there), str(IN_IMAGE))
    pip = pip_arguments()
    for name in ("pip", "pip3"):
        program = there / "bin" / name
        program.write_text(f'#!/bin/sh\nexec {shlex.join([str(python(IN_IMAGE)), *pip])} "$@"\n')
        program.chmod(0o755)
    if len(pip) == 1:
        (place,) = packages(there)[:1]
        (place / _BUNDLED_PIP).write_text(f"{Path(pip[0]).parent}\n")


def make_for(there: Path, interpreter: str, series: str, client: Path) -> None:
    """Make an empty environment at ``there``, to be used at IN_IMAGE, for another Python than this process's.

    It finds that Python's packages after its own, and then those in the folder ``client``.
    """
    place = there / "lib" / f"python{series}" / "site-packages"
    place.mkdir(parents=True)
    home, program = str(Path(interpreter).parent), there / "bin" / "python"
    (there / "pyvenv.cfg").write_text(f"home = {home}\ninclude-system-site-packages = true\nversion = {series}\n")
    program.parent.mkdir()
    program.symlink_to(interpreter)
    for name in ("python3", f"python{series}"):
        program.with_name(name).symlink_to("python")
    connect_to(place, client)
    for name in ("pip", "pip3"):
        script = program.with_name(name)
        script.write_text(f'#!/bin/sh\nexec {python(IN_IMAGE)} -m pip "$@"\n')
        script.chmod(0o755)


def connect_to(place: Path, client: Path) -> None:
    """Make an environment, by its folder of packages, find Modal's SDK after its own packages."""
    (place / CLIENT_PATHS).write_text(f"import site; site.addsitedir({str(client)!r})\n")


def pip_arguments() -> list[str]:
    """Return an environment's arguments for pip: the host's pip, otherwise the one bundled with Python; [] if none."""
    if importlib.util.find_spec("pip") is not None:
        return ["-P", "-m", "pip"]
    wheel = bundled_pip()
    return [] if wheel is None else [str(wheel / "pip")]


def bundled_pip() -> Path | None:
    """Return the wheel of pip that comes with Python, if any."""
    return next((wheel for folder in _wheels_of_python() for wheel in folder.glob("pip-*.whl")), None)


def _wheels_of_python() -> Iterator[Path]:
    # Debian and Fedora have them elsewhere than in the package of ensurepip.
    if of_distribution := sysconfig.get_config_var("WHEEL_PKG_DIR"):
        yield Path(of_distribution)
    bundled = importlib.util.find_spec("ensurepip")
    if bundled is not None and bundled.origin is not None:
        yield Path(bundled.origin).parent / "_bundled"


def clone(source: Path, target: Path) -> None:
    """Make a copy of an environment. Its packages' files are shared: installers replace files, never change them."""
    shutil.copytree(source, target, symlinks=True, copy_function=_linked)
    for kept in (source / "bin", source / "pyvenv.cfg", *(place / HOST_PATHS for place in packages(source))):
        # These are changed in place, by ``relocate`` and ``connect``.
        copy = target / kept.relative_to(source)
        for file in copy.iterdir() if copy.is_dir() else [copy]:
            if file.is_file() and not file.is_symlink():
                original = source / file.relative_to(target)
                file.unlink()
                shutil.copy2(original, file)
    relocate(target, str(source), str(target))


def relocate(folder: Path, old: str, new: str) -> None:
    """Make the programs of an environment work under another path.

    The installer writes its interpreter's path into the first line of each program.
    """
    for file in [*(folder / "bin").iterdir(), folder / "pyvenv.cfg"]:
        if file.is_file() and not file.is_symlink():
            content = file.read_bytes()
            moved = content.replace(os.fsencode(old), os.fsencode(new))
            if moved != content:
                file.write_bytes(moved)


def connect(folder: Path) -> None:
    """Make the environment find the packages of this process's Python after its own."""
    lines = [f"import site; site.addsitedir({host!r})\n" for host in host_packages()]
    (place,) = packages(folder)[:1]
    path = place / HOST_PATHS
    wanted = "".join(lines)
    if not path.is_file() or path.read_text() != wanted:
        incoming = path.with_suffix(".incoming")
        incoming.write_text(wanted)
        incoming.replace(path)


def python(folder: Path) -> Path:
    """Return the environment's interpreter."""
    return folder / "bin" / "python"


def packages(folder: Path) -> list[Path]:
    """Return the folders of the environment's packages: two if compiled ones have their own."""
    places = {"base": str(folder), "platbase": str(folder)}
    return list(dict.fromkeys(Path(sysconfig.get_path(kind, "venv", places)) for kind in ("purelib", "platlib")))


def installed(names: Iterable[str]) -> dict[str, str]:
    """Return an environment's own packages, name → version, from the names in its folders of packages."""
    return {m["name"]: m["version"] for name in sorted(names) if (m := _METADATA.match(name)) is not None}


def host_packages() -> list[str]:
    """Return the package folders of this process's Python, in search order."""
    found = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages") and Path(path).is_dir()]
    spec = importlib.util.find_spec("modal")
    if spec is not None and spec.origin is not None:
        found.append(str(Path(spec.origin).parents[1]))
    return list(dict.fromkeys(found))


def _linked(source: str, target: str) -> str:
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:
        # Some file systems have no links.
        shutil.copy2(source, target, follow_symlinks=False)
    return target
