"""The images of the worker: this environment's Python, Airflow and packages, alone or on top of a user's image.

A workload can only be read by the same minor version of Airflow that wrote it. So the image installs the Airflow of
this environment, pinned.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import modal

from modalflow.errors import DeployError
from modalflow.worker.deploy.mirror import Mirror, mirror_environment, pins
from modalflow.worker.deploy.profile import Profile

#: The mirror is complete, and its packages are as compatible as they are here: pip must not resolve them again.
_AS_IT_IS = "--no-deps"


def airflow_image(base: modal.Image) -> modal.Image:
    """Return ``base`` with all packages of this environment, including Airflow, in the same versions.

    Use it for an image of your own that must have exactly the packages of this environment. It needs the same minor
    version of Python. Requirements of packages that the base image has are not checked.
    """
    return base.uv_pip_install(*pins(mirror_environment().packages), extra_options=_AS_IT_IS)


def default_image(
    mirror: Mirror, requirements: Path | None, *, whole: bool, programs: Sequence[str] = ()
) -> modal.Image:
    """Return the image of profiles without one: with all packages of the mirror, or with Airflow and the requirements.

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
        image = image.uv_pip_install(*pins(mirror.airflow))
    if requirements is not None:
        image = image.uv_pip_install(requirements=[str(requirements)])
    return image


def image_of(profile: Profile, default: modal.Image, mirror: Mirror) -> modal.Image:
    """Return the image of a profile, with Airflow."""
    if profile.image is None:
        return default
    if profile.image_has_airflow or not mirror.airflow:
        return profile.image
    return profile.image.uv_pip_install(*pins(mirror.airflow))


def python_series() -> str:
    """Return the minor version of this Python, such as 3.12."""
    return ".".join(platform.python_version_tuple()[:2])
