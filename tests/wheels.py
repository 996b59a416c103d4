"""Wheels: the project's own, as a stranger installs it, and packages small enough to be made by a test."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]

#: What goes into a build; never the virtual environment or anybody's caches.
SOURCES = ("src", "examples", "pyproject.toml", "README.md", "LICENSE")


def copy_sources(folder: Path) -> None:
    """Copy into that folder what goes into a build."""
    for name in SOURCES:
        source = CHECKOUT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder)


def build_wheel(folder: Path) -> Path:
    """Build the project's wheel in that folder, from a copy of the sources by the pinned build backend."""
    copy_sources(folder)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder / "dist"), str(folder)]
    done = subprocess.run(build, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = (folder / "dist").glob("*.whl")
    return built


def environment_with(wheel: Path, folder: Path, extra: str = "") -> Path:
    """Make a virtual environment with the wheel, and what it or an extra of it asks for in the pinned versions."""
    found = subprocess.run(
        [CHECKOUT / "scripts" / "bootstrap-uv", sys.executable, CHECKOUT / ".tools" / "uv"],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    uv = found.stdout.strip()
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder], check=True)
    what = f"modalflow[{extra}] @ {wheel.as_uri()}" if extra else str(wheel)
    constraints = CHECKOUT / "constraints" / "demo.txt"
    subprocess.run([uv, "pip", "install", "-q", "--python", folder, "-c", constraints, what], check=True)
    _share_bytecode(folder)
    return folder


def _share_bytecode(venv: Path) -> None:
    """Link the bytecode of this environment's packages into another one, which then need not compile Airflow again.

    Python checks that bytecode is of the file beside it, and compiles the file if it is not.
    """
    site = Path(sysconfig.get_path("purelib"))
    packages = venv / site.relative_to(sys.prefix)
    for name, folders, files in os.walk(packages):
        folder = Path(name)
        if "__pycache__" in folders:
            folders.remove("__pycache__")
        compiled = site / folder.relative_to(packages) / "__pycache__"
        if not compiled.is_dir() or not any(file.endswith(".py") for file in files):
            continue
        own = folder / "__pycache__"
        own.mkdir(exist_ok=True)
        for bytecode in compiled.glob("*.pyc"):
            with contextlib.suppress(FileExistsError):
                (own / bytecode.name).symlink_to(bytecode)


def make_wheel(folder: Path, name: str, version: str) -> Path:
    """Write a wheel of a package ``name``: its ``VERSION`` is the version, and its program ``<name>-say`` prints it."""
    about = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"VERSION = {version!r}\n\ndef main():\n    print({name!r}, VERSION)\n",
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{about}/entry_points.txt": f"[console_scripts]\n{name}-say = {name}:main\n",
    }
    files[f"{about}/RECORD"] = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)
    return path


def install_other_modalflow(folder: Path) -> Path:
    """Install the other program named modalflow into a folder, as its version 0.3.1 is on the package index."""
    wheel = make_wheel(folder, "modalflow", "0.3.1")
    site = folder / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return site
