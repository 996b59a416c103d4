"""The images of the worker: this environment's Python, Airflow and packages, alone or on top of an image of a user's.

A workload can only be read by the Airflow that wrote it, in the same minor version at least; so Airflow comes from
here, pinned.
"""

from __future__ import annotations

import platform
from collections.abc import Sequence
from pathlib import Path

import modal

from modalflow.errors import DeployError
from modalflow.worker.deploy.mirror import Mirror, environment, pins
from modalflow.worker.deploy.profile import Profile

#: The mirror is complete, and its packages fit together as far as they do here: nothing is to be resolved anew.
_AS_IT_IS = "--no-deps"


def airflow_image(base: modal.Image) -> modal.Image:
    """Return ``base`` with all packages of this environment, Airflow among them, in the versions that are here.

    For an image of one's own that is to have exactly what this environment has; it needs the same minor version of
    Python. What a package of the base demanded in another version is not asked for.
    """
    return base.uv_pip_install(*pins(environment().packages), extra_options=_AS_IT_IS)


def default_image(
    mirror: Mirror, requirements: Path | None, *, whole: bool, programs: Sequence[str] = ()
) -> modal.Image:
    """The image of profiles without one: with all packages of the mirror, or with Airflow and the requirements.

    ``programs`` are packages of Debian's.
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
    """The image of a profile, with Airflow."""
    if profile.image is None:
        return default
    if profile.image_has_airflow or not mirror.airflow:
        return profile.image
    return profile.image.uv_pip_install(*pins(mirror.airflow))


def python_series() -> str:
    """The minor version of this Python."""
    return ".".join(platform.python_version_tuple()[:2])
