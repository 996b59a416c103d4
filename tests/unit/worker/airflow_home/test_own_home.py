"""The Airflow home that an image brings along, and the host's beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from modalflow.worker.airflow_home.own_home import NO_HOME, OwnHome


def write(folder: Path, **files: str) -> Path:
    """Write files into a folder: name with ``__`` for a slash → text. Return the folder."""
    for name, text in files.items():
        file = folder / f"{name.replace('__', '/')}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return folder


def texts(folder: Path) -> dict[str, str]:
    """What a reader finds in the Python files of a folder, through links."""
    return {str(file.relative_to(folder)): file.read_text() for file in folder.glob("**/*.py")}


@pytest.fixture
def image(tmp_path: Path) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    return folder


def test_an_image_without_a_home_changes_nothing(tmp_path: Path) -> None:
    """A variable that names no folder is not a home."""
    for own in (NO_HOME, OwnHome.of({}), OwnHome.of({"AIRFLOW_HOME": str(tmp_path / "nowhere")})):
        assert own.is_empty and own.settings == {}
        own.add_to(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_files_of_both_are_there_and_the_images_win(tmp_path: Path, image: Path) -> None:
    """The folders of the image and of the host become one; the host's folder of modules is not the image's matter."""
    write(image, plugins__acme="image", plugins__tools__text="image", include__sql="image", logs__x="image")
    home = write(
        tmp_path / "home", plugins__acme="host", plugins__more="host", plugins__tools__more="host", config__log="host"
    )
    OwnHome.of({"AIRFLOW_HOME": str(image)}).add_to(home)
    assert texts(home / "plugins") == {
        "acme.py": "image",
        "more.py": "host",
        "tools/more.py": "host",
        "tools/text.py": "image",
    }
    assert texts(home / "config") == {"log.py": "host"}
    assert texts(home / "include") == {"sql.py": "image"}
    assert not (home / "logs").exists()
    assert texts(image)["plugins/acme.py"] == "image" and not (image / "plugins/more.py").exists()


def test_plugins_in_another_folder_are_part_of_the_home(tmp_path: Path, image: Path) -> None:
    """An image may name its folder of plugins in a variable or in its configuration."""
    plugins = write(tmp_path / "elsewhere", acme="image")
    (image / "airflow.cfg").write_text(f"[core]\nplugins_folder = {plugins}\n")
    for own in (
        OwnHome.of({"AIRFLOW__CORE__PLUGINS_FOLDER": str(plugins)}),
        OwnHome.of({"AIRFLOW_HOME": str(image)}),
    ):
        home = write(tmp_path / f"home-{id(own)}", plugins__acme="host", plugins__more="host")
        own.add_to(home)
        assert texts(home) == {"plugins/acme.py": "image", "plugins/more.py": "host"}
        assert own.settings == {}


def test_only_decisions_in_the_images_configuration_count(tmp_path: Path) -> None:
    """Airflow writes its defaults into a new file, and these must not hide what the host has set."""
    file = tmp_path / "own.cfg"
    file.write_text(
        "[core]\ndefault_timezone = utc\nparallelism = 7\nhostname_callable =\n"
        "[logging]\nlog_format = %%(message)s\n[acme]\nkey = value\n"
    )
    own = OwnHome.of({"AIRFLOW_CONFIG": str(file)})
    assert own.settings == {
        "core": {"parallelism": "7"},
        "logging": {"log_format": "%(message)s"},
        "acme": {"key": "value"},
    }


def test_a_configuration_that_cannot_be_read_is_reported_and_ignored(
    image: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The host's settings hold, and the container's log has the file."""
    (image / "airflow.cfg").write_text("no section = 1")
    own = OwnHome.of({"AIRFLOW_HOME": str(image)})
    assert own.settings == {}
    assert str(image / "airflow.cfg") in caplog.text
