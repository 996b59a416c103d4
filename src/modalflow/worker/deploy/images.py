"""The images of the worker: this environment's Python, Airflow and packages, alone or on top of a user's image.

A workload can only be read by the same minor version of Airflow that wrote it. So the image installs the Airflow of
this environment, pinned, with the versions that its dependencies have here (``constraints``).
"""

from __future__ import annotations

import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import modal
from modal import exception

from modalflow.errors import DeployError
from modalflow.support.described import words_of
from modalflow.support.packages import canonical
from modalflow.worker.deploy.constraints import ADVICE, CONSTRAINTS_PATH, Constraints
from modalflow.worker.deploy.in_image.bytecode import compile_packages
from modalflow.worker.deploy.in_image.image_check import PackageConflictError, check_packages
from modalflow.worker.deploy.mirror import Mirror, mirror_environment, pins
from modalflow.worker.deploy.profile import Profile

#: The mirror is complete, and its packages are as compatible as they are here: pip must not resolve them again.
_AS_IT_IS = "--no-deps"

#: Lines of a build's log in an error.
_LAST_LINES = 20

#: The check's exception in a traceback, or in Python's notation.
_CONFLICT = re.compile(
    PackageConflictError.__name__ + r"(?::\s|\((?P<quote>['\"]))(?P<found>[^\n]*?)(?:(?P=quote)\)|\n|$)"
)


def airflow_image(base: modal.Image) -> modal.Image:
    """Return ``base`` with all packages of this environment, including Airflow, in the same versions.

    Use it for an image of your own that must have exactly the packages of this environment. It needs the same minor
    version of Python. Requirements of packages that the base image has are not checked.
    """
    return base.uv_pip_install(*pins(mirror_environment().packages), extra_options=_AS_IT_IS)


def default_image(
    mirror: Mirror,
    requirements: Path | None,
    *,
    whole: bool,
    constraints: Path | None = None,
    programs: Sequence[str] = (),
) -> modal.Image:
    """Return the image of profiles without one: with all packages of the mirror, or with Airflow and the requirements.

    ``constraints`` is a file with the versions of Airflow's dependencies; it must exist until the image is built.
    ``programs`` are Debian packages.
    """
    image = modal.Image.debian_slim(python_version=python_series())
    if programs:
        image = image.apt_install(*programs)
    if requirements is not None and not requirements.is_file():
        raise DeployError(f"The requirements file {requirements} does not exist; expected a file that pip can read.")
    if whole and mirror.packages:
        image = image.uv_pip_install(*pins(mirror.packages), extra_options=_AS_IT_IS)
    elif mirror.airflow:
        image = _constrained(image, constraints).uv_pip_install(*pins(mirror.airflow), extra_options=_with(constraints))
    if requirements is not None:
        # Airflow is among the constraints, so this cannot change what is there already.
        image = image.uv_pip_install(requirements=[str(requirements)], extra_options=_with(constraints))
    return image


def image_of(
    profile: Profile,
    default: modal.Image,
    mirror: Mirror,
    constraints: Constraints | None = None,
    file: Path | None = None,
) -> modal.Image:
    """Return the image of a profile, with Airflow, and with the bytecode of all packages.

    An image of the user's gets it under the constraints, whose text is in ``file``. If the image asks for other
    versions, the build fails with PackageConflictError.
    """
    if profile.image is None:
        return default
    if profile.image_has_airflow or not mirror.airflow:
        return profile.image.run_function(compile_packages)
    image = profile.image
    if constraints is not None:
        image = image.run_function(check_packages, args=(dict(constraints.versions), _preinstalled(constraints)))
    image = _constrained(image, file).uv_pip_install(*pins(mirror.airflow), extra_options=_with(file))
    return image.run_function(compile_packages)


def build_failure(error: BaseException, log: str = "", profiles: Sequence[Profile] = ()) -> str:
    """Return the reason for a failed build, for a user, from the SDK's exception and the build's log."""
    text = f"{words_of(error)}\n{log}".rstrip()
    found = _CONFLICT.search(text)
    if found is None:
        return text
    lines = "".join(f"\n  {line}" for line in found["found"].split("; "))
    own = [repr(profile.name) for profile in profiles if profile.image is not None and not profile.image_has_airflow]
    whose = f"one of the profiles {', '.join(own)}" if len(own) > 1 else f"profile {''.join(own)}"
    return f"the image of {whose} contradicts this Airflow host:{lines}\n{ADVICE}"


def build_log(error: BaseException, client: modal.Client | None) -> str:
    """Return the last lines of the log of a failed build that the SDK's exception lacks; empty if there are none."""
    image_id = getattr(error, "image_id", "")
    # Both came with newer SDKs.
    if not image_id or "exception:" in str(error) or not hasattr(modal.Image, "logs"):
        return ""
    image: Any = modal.Image.from_id(image_id, client=client)
    try:
        return "".join(entry.message for entry in image.logs.tail(_LAST_LINES)).strip()
    except (exception.Error, OSError):
        # The failed build is the error that counts.
        return ""


def python_series() -> str:
    """Return the minor version of this Python, such as 3.12."""
    return ".".join(platform.python_version_tuple()[:2])


def _constrained(image: modal.Image, constraints: Path | None) -> modal.Image:
    return image if constraints is None else image.add_local_file(constraints, CONSTRAINTS_PATH, copy=True)


def _with(constraints: Path | None) -> str:
    return "" if constraints is None else f"--constraint {CONSTRAINTS_PATH}"


def _preinstalled(constraints: Constraints) -> dict[str, list[str]]:
    """Return the versions that Modal's older image builders install for the SDK: no user asked for them."""
    found: dict[str, list[str]] = {}
    for file in sorted(Path(modal.__file__).parent.glob("builder/*.txt")):
        for line in file.read_text().splitlines():
            name, _, version = line.partition("==")
            if (name := canonical(name.strip())) in constraints.versions and version:
                found.setdefault(name, []).append(version.strip())
    return found
