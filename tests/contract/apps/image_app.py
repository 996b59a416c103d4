"""Functions that tell which packages and files their containers have. Runs in containers."""

import importlib
import os
import pathlib
import subprocess
import sys
from typing import Any

WRITTEN = "/opt/written-by-a-build/file.txt"


def tell(package: str) -> dict[str, Any]:
    """What this process, a Python that it starts and a program on PATH find of a package."""
    try:
        version = importlib.import_module(package).VERSION
    except ImportError:
        version = None
    program = f"import {package}, grpclib; print({package}.VERSION)"
    below = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    script = subprocess.run(["/bin/sh", "-c", f"{package}-say"], capture_output=True, text=True)
    return {"here": version, "below": below.stdout.strip(), "script": script.stdout.strip()}


def version(package: str) -> str:
    """The version of a package, as it says itself."""
    return str(importlib.import_module(package).VERSION)


def read(path: str) -> str:
    return pathlib.Path(path).read_text()


def variables() -> dict[str, str]:
    return dict(os.environ)


def write(text: str) -> None:
    """Build an image by writing a file, a link to it, and what it was given."""
    print("building with", text)
    path = pathlib.Path(WRITTEN)
    path.parent.mkdir(parents=True)
    path.write_text(f"{text} {os.environ.get('BUILD_SECRET')}")
    path.with_name("link").symlink_to(path.name)
    pathlib.Path("/opt/a-volume/from-the-build").write_text(os.environ["FROM_BELOW"])


def put(path: str, text: str) -> None:
    pathlib.Path(path).write_text(text)


def write_home(text: str) -> None:
    pathlib.Path.home().joinpath("written").write_text(text)


def read_home() -> str:
    return pathlib.Path.home().joinpath("written").read_text()


def spoil(package: str) -> bool:
    """Whether a container can write where a package is installed."""
    folder = pathlib.Path(str(importlib.import_module(package).__file__)).parent
    return os.access(folder, os.W_OK)


def refuse() -> None:
    raise ValueError("this build function refuses")


def run(command: str) -> str:
    """What a shell prints of a command's output."""
    return subprocess.run(["/bin/sh", "-c", command], stdout=subprocess.PIPE, text=True, check=True).stdout
