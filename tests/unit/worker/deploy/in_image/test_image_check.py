"""What an image may have beside Airflow, and how a contradiction reaches the user."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

import modal
import pytest

from modalflow.worker.deploy.images import build_failure
from modalflow.worker.deploy.in_image.image_check import PackageConflictError, check_packages
from modalflow.worker.deploy.profile import Profile
from tests.unit.worker.deploy.packages import found, installed

HOST = {"pydantic": "2.11.7", "apache-airflow-core": "3.3.2"}


@pytest.fixture
def image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packages of an image: this process finds them instead of its own."""
    monkeypatch.setattr(metadata, "distributions", lambda: found(tmp_path))
    return tmp_path


def by_user(installer: str = "pip") -> dict[str, str]:
    return {"REQUESTED": "", "INSTALLER": f"{installer}\n"}


@pytest.mark.parametrize(
    ("version", "files"),
    [
        ("2.11.7", by_user("uv")),
        ("2.11.7+acme", by_user()),
        ("2.5.0", {"INSTALLER": "uv\n"}),
        ("2.5.0", by_user("conda")),
        ("2.4.0", by_user("uv")),
    ],
)
def test_what_no_user_asked_for_gives_way(image: Path, version: str, files: dict[str, str]) -> None:
    """A dependency, a package of conda's or of Modal's own, and of course the same version."""
    installed(image, "pydantic", version, files=files)
    check_packages(HOST, {"pydantic": ["2.4.0"]})


def test_what_a_user_asked_for_does_not(image: Path) -> None:
    """Each contradiction names the package and both versions."""
    installed(image, "pydantic", "2.5.0", files=by_user())
    installed(image, "Apache_Airflow.Core", "3.1.0", files=by_user("uv"))
    with pytest.raises(PackageConflictError) as error:
        check_packages(HOST, {})
    assert str(error.value) == (
        "the image asks for apache-airflow-core 3.1.0, the Airflow host has 3.3.2; "
        "the image asks for pydantic 2.5.0, the Airflow host has 2.11.7"
    )


def test_nor_does_what_another_package_of_the_image_needs(image: Path) -> None:
    """It works now, and would not with the host's version. What is broken already is left as it is."""
    installed(image, "pydantic", "2.5.0")
    installed(image, "acme", "1.2", requires=["pydantic<2.6", "pydantic>3; extra == 'next'"])
    installed(image, "broken", "1.0", requires=["pydantic>3"])
    with pytest.raises(PackageConflictError) as error:
        check_packages(HOST, {})
    assert str(error.value) == (
        "acme 1.2 in the image requires pydantic<2.6 (there is 2.5.0), the Airflow host has 2.11.7"
    )


@pytest.mark.parametrize("form", ["{0!r}\nTraceback (…)", "Traceback (…)\nmodalflow.x.{1}: {0}\nBuild ended"])
def test_the_user_reads_what_to_do(form: str) -> None:
    """However the control plane shows the exception, in its result or in the build's log."""
    conflict = "the image asks for a 1, the Airflow host has 2; the image asks for b 1, the Airflow host has 3"
    raised: Any = PackageConflictError(conflict)
    error = RuntimeError(form.format(raised, type(raised).__name__))
    image = modal.Image.debian_slim()
    profiles = [Profile(), Profile("gpu", image=image), Profile("all", image=image, image_has_airflow=True)]
    text = build_failure(error, profiles=profiles)
    assert text.startswith("the image of profile 'gpu' contradicts this Airflow host:")
    assert "\n  the image asks for a 1, the Airflow host has 2\n  the image asks for b 1" in text
    assert text.endswith("deploy again.")
    assert "Traceback" not in text


def test_any_other_failure_is_shown_as_it_is() -> None:
    """With the log of the build, if the exception only points to it."""
    assert build_failure(RuntimeError("failed"), "error: no space") == "failed\nerror: no space"
