"""The files of the Airflow host that containers get."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from modalflow.airflow_compat.host_options import Source
from modalflow.airflow_home import host_files as module
from modalflow.airflow_home.host_files import HostFiles, find_host_files
from modalflow.airflow_home.host_settings import HostSettings, Setting
from modalflow.errors import ConfigError


class Host:
    """An Airflow host in a folder: AIRFLOW_HOME, its settings, and one more folder on ``sys.path``."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.home = home
        self.values: list[str] = []
        self.bundles = "[]"
        self.dags = home / "dags"
        self.dags.mkdir(parents=True)
        monkeypatch.setattr(module, "_config_folder", lambda: home / "config")
        monkeypatch.syspath_prepend(str(self.dags))

    def get(self, section: str, option: str, fallback: Any = None) -> Any:
        found = {("core", "plugins_folder"): str(self.home / "plugins")}
        found[("dag_processor", "dag_bundle_config_list")] = self.bundles
        return found.get((section, option), fallback)

    def write(self, path: str, text: str = "") -> Path:
        file = self.home / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def find(self) -> HostFiles:
        settings = [Setting("acme", f"option_{value}", value, Source.FILE, "acme") for value in self.values]
        return find_host_files(self, HostSettings(tuple(settings)))

    def paths(self) -> list[str]:
        return sorted(self.find().files)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    yield Host(tmp_path / "airflow", monkeypatch)


def test_plugins_are_taken_whole_and_config_only_its_python_files(host: Host) -> None:
    """A plugin may read its own data. Beside local settings, there are often Airflow's own file and keys."""
    host.write("plugins/acme.py")
    host.write("plugins/acme_data/query.sql")
    host.write("plugins/.airflowignore", "draft*")
    host.write("plugins/__pycache__/acme.cpython-311.pyc")
    host.write("plugins/.git/HEAD")
    host.write("config/airflow_local_settings.py")
    host.write("config/acme/log_config.py")
    host.write("config/airflow.cfg", "[core]\nfernet_key = secret")
    host.write("config/google.json", "secret")
    assert host.paths() == [
        "config/acme/log_config.py",
        "config/airflow_local_settings.py",
        "plugins/.airflowignore",
        "plugins/acme.py",
        "plugins/acme_data/query.sql",
    ]
    assert host.find().files["plugins/acme.py"].read_text() == ""


def test_folders_that_do_not_exist_have_no_files(host: Host) -> None:
    """A host without plugins and local settings is the ordinary case."""
    assert host.paths() == []
    assert host.find().problems == []


def test_airflows_own_secrets_never_leave_the_host(host: Host) -> None:
    """Even if the plugins folder is the whole Airflow home, its configuration and passwords stay."""
    for name in ("airflow.cfg", "airflow.cfg.bak", "airflow.db", ".env", "simple_auth_manager_passwords.json"):
        host.write(f"plugins/{name}", "secret")
    host.write("plugins/acme.py")
    assert host.paths() == ["plugins/acme.py"]


def test_config_as_a_package_brings_no_other_file(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """With AIRFLOW_HOME on the path, config/ may be a package; the keys in it stay on the host all the same."""
    monkeypatch.syspath_prepend(str(host.home))
    host.write("config/__init__.py")
    host.write("config/google.json", "secret")
    host.write("plugins/acme.py", "import config")
    assert host.paths() == ["config/__init__.py", "modules/config/__init__.py", "plugins/acme.py"]


def test_a_module_that_a_setting_names_comes_with_all_that_it_imports(host: Host) -> None:
    """Of a folder of DAGs only these modules are taken, not the DAG files."""
    host.write("dags/acme_xcom.py", "from acme_codec import pack\nimport json")
    host.write("dags/acme_codec.py", "def pack():\n    import acme_tools.text.lines")
    host.write("dags/acme_tools/__init__.py")
    host.write("dags/acme_tools/words.txt")
    host.write("dags/acme_tools/text/__init__.py", "from ..late import x")
    host.write("dags/acme_tools/late.py", "import acme_last")
    host.write("dags/acme_last.py")
    host.write("dags/a_dag.py", "import acme_codec")
    host.values = ["acme_xcom.FileXCom"]
    assert host.paths() == [
        "modules/acme_codec.py",
        "modules/acme_last.py",
        "modules/acme_tools/__init__.py",
        "modules/acme_tools/late.py",
        "modules/acme_tools/text/__init__.py",
        "modules/acme_tools/words.txt",
        "modules/acme_xcom.py",
    ]


def test_a_folder_without_init_is_not_taken_whole(host: Host) -> None:
    """It may be the folder of all DAGs: only the modules in use are taken from it."""
    host.write("dags/shared/backends/xcom.py", "from . import codec")
    host.write("dags/shared/backends/codec.py")
    host.write("dags/shared/a_dag.py")
    host.values = ["shared.backends.xcom.FileXCom"]
    assert host.paths() == ["modules/shared/backends/codec.py", "modules/shared/backends/xcom.py"]


def test_modules_that_plugins_and_local_settings_import_are_taken_too(host: Host) -> None:
    """A plugin that imports a module beside the DAGs works in a container as it does on the host."""
    host.write("plugins/acme.py", "import acme_a")
    host.write("config/airflow_local_settings.py", "try:\n    import acme_b\nexcept ImportError: pass")
    host.write("dags/acme_a.py")
    host.write("dags/acme_b.py")
    assert [path for path in host.paths() if path.startswith("modules/")] == ["modules/acme_a.py", "modules/acme_b.py"]


def test_local_settings_are_found_on_the_path(host: Host) -> None:
    """Airflow imports airflow_local_settings from any folder on sys.path, not only from config/."""
    host.write("dags/airflow_local_settings.py")
    assert host.paths() == ["modules/airflow_local_settings.py"]


@pytest.mark.parametrize(
    "value", ["json.JSONDecoder", "airflow.sdk.bases.xcom.BaseXCom", "nowhere.X", "acme.example.com:8125", "1.5.x"]
)
def test_values_that_name_no_module_of_the_hosts_add_nothing(host: Host, value: str) -> None:
    """Installed packages are part of the image; addresses and numbers are not modules."""
    host.write("dags/acme.py")
    host.values = [value]
    assert host.paths() == []


def test_an_installed_package_wins_over_a_folder_behind_it(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module that Python would import decides, not the one with the same name in another folder."""
    host.write("dags/click.py")
    monkeypatch.setattr(sys, "path", [*(each for each in sys.path if each != str(host.dags)), str(host.dags)])
    host.values = ["click.Command"]
    assert host.paths() == []


def test_classes_within_a_json_value_are_found(host: Host) -> None:
    """DAG bundles have their class within JSON."""
    host.write("dags/acme_bundle.py")
    host.bundles = '[{"name": "a", "classpath": "acme_bundle.Bundle", "kwargs": {}}]'
    assert host.paths() == ["modules/acme_bundle.py"]


def test_broken_sources_are_taken_without_their_imports(host: Host) -> None:
    """The container reports the error of a module, with its traceback."""
    host.write("plugins/broken.py", "def (")
    host.write("plugins/binary.py", "\0")
    assert host.paths() == ["plugins/binary.py", "plugins/broken.py"]


def test_links_are_followed_but_not_in_circles(host: Host, tmp_path: Path) -> None:
    """A container gets the content that a link leads to; Kubernetes mounts files as links to hidden folders."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "acme.py").touch()
    host.write("plugins/..2026_01_01/settings.py")
    plugins = host.home / "plugins"
    (plugins / "..data").symlink_to("..2026_01_01")
    (plugins / "settings.py").symlink_to("..data/settings.py")
    (plugins / "linked").symlink_to(outside)
    (plugins / "again").symlink_to(plugins)
    (plugins / "gone.py").symlink_to("nowhere")
    assert host.paths() == ["plugins/linked/acme.py", "plugins/settings.py"]


def test_a_file_that_cannot_be_read_is_a_problem_and_no_error(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow on the host cannot read it either."""
    secret = host.write("plugins/private.py")
    host.write("plugins/acme.py")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != secret)
    assert host.paths() == ["plugins/acme.py"]
    assert host.find().problems == [f"{secret} is not readable for this user, so tasks on Modal do not have it."]


@pytest.mark.parametrize(("limit", "expected"), [("MOST_FILES", "2 files"), ("LARGEST_FILE", "at most 0 MiB")])
def test_limits_are_errors_that_name_the_setting(
    host: Host, monkeypatch: pytest.MonkeyPatch, limit: str, expected: str
) -> None:
    """An executor does not start with files that containers cannot get, and says where they are."""
    for name in "abc":
        host.write(f"plugins/{name}.py", "text" * 100)
    monkeypatch.setattr(module, limit, 2)
    with pytest.raises(ConfigError, match=r"\[core\] plugins_folder is .*airflow/plugins") as error:
        host.find()
    assert expected in str(error.value)


def test_a_package_beyond_a_limit_is_left_out_and_reported(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unlike the plugins, nobody may need it in a task, so the scheduler starts; the doctor names it as well."""
    monkeypatch.setattr(module, "MOST_FILES", 2)
    host.write("plugins/acme.py", "import acme_large, acme_small")
    host.write("dags/acme_small.py")
    for name in ("__init__", "a", "b"):
        host.write(f"dags/acme_large/{name}.py")
    assert host.paths() == ["modules/acme_small.py", "plugins/acme.py"]
    (problem,) = host.find().problems
    assert "The package acme_large" in problem and "at most 2 files" in problem


def test_packages_installed_into_a_folder_on_the_path_stay(host: Host) -> None:
    """The image must have them, as all installed packages."""
    host.write("dags/acme_xcom.py")
    host.write("dags/acme-1.0.dist-info/METADATA")
    host.values = ["acme_xcom.FileXCom"]
    assert host.paths() == []


def test_a_thousand_dags_beside_a_module_cost_nothing(host: Host) -> None:
    """Files that no setting needs are not even opened."""
    for number in range(1000):
        host.write(f"dags/dag_{number}.py", "import acme_xcom")
    host.write("dags/acme_xcom.py")
    host.values = ["acme_xcom.FileXCom"]
    assert host.paths() == ["modules/acme_xcom.py"]


def test_links_between_all_folders_are_an_error_and_take_no_time(host: Host) -> None:
    """Ten folders with links to each other have millions of paths."""
    folders = [host.home / "plugins" / f"d{number}" for number in range(10)]
    for folder in folders:
        folder.mkdir(parents=True)
    for folder in folders:
        for other in folders:
            if folder != other:
                (folder / f"to_{other.name}").symlink_to(other)
    with pytest.raises(ConfigError, match=r"plugins_folder.*at most 5,000 folders"):
        host.find()


def test_a_very_deep_folder_is_an_error_that_names_it(host: Host) -> None:
    """The limit of Python's own recursion would not name the setting."""
    host.write("plugins/" + "d/" * 120 + "a.py")
    with pytest.raises(ConfigError, match=r"\[core\] plugins_folder"):
        host.find()


def test_links_to_themselves_and_pipes_hold_up_no_scheduler(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow's own imports survive them as well."""
    (host.home / "plugins").symlink_to(host.home / "plugins")
    loop = host.home / "loop"
    loop.symlink_to(loop)
    monkeypatch.setenv("PYTHONPATH", str(loop))
    monkeypatch.syspath_prepend(str(loop))
    host.write("dags/acme_pkg/__init__.py")
    os.mkfifo(host.home / "dags/acme_pkg/pipe.py")
    host.write("dags/acme_pkg/deep.py", "x = " + "-" * 200_000 + "1")
    host.values.append("acme_pkg.Thing")
    assert sorted(host.find().files) == ["modules/acme_pkg/__init__.py", "modules/acme_pkg/deep.py"]
